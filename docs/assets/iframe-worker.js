// Pages opened from disk may start no worker, so that the search box needs a server (`mkdocs serve`). The theme would
// load a stand-in from a content network here; this site loads nothing over a network.
