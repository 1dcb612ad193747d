import json

from phenoscope.report.theme import data_script, page, text


def test_text_cannot_leave_an_attribute_or_an_element():
    assert text("<b a='\"'>&") == "&lt;b a=&#x27;&quot;&#x27;&gt;&amp;"
    assert text("a\u202eb\x00c") == "a b c"


def test_json_in_a_script_survives_and_closes_nothing():
    value = {"name": "</script><!-- & \u2028 \u2029 \\u003c é"}
    script = data_script("x", json.dumps(value, ensure_ascii=False))
    content = script.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")
    assert not set("<>&\u2028\u2029") & set(content)
    assert json.loads(content) == value


def test_the_policy_forbids_the_network_and_scripts_in_the_page():
    head = page("<t>", "").partition("</head>")[0]
    assert "default-src 'none'" in head and "script-src 'self' file:;" in head
    assert "connect-src" not in head and "https:" not in head
    assert "<title>&lt;t&gt;</title>" in head
