"""What a sink may take of the time while the training goes on, and what it gets when that is not enough."""

import threading
import time

import numpy as np
import pytest

from phenoscope.record import sinks as module


def item(step, *, filters=False, **scalars):
    by_filter = (np.empty(0), np.empty(0, np.uint32)) if filters else None
    return module.Item(step, [], scalars or {"loss": float(step)}, None, by_filter)


class Held:
    """A sink that keeps what it gets, and waits before it takes anything."""

    def __init__(self):
        self.entered, self.go, self.steps, self.names, self.drawn = threading.Event(), threading.Event(), [], [], []

    def __call__(self, step, values):
        self.entered.set()
        self.go.wait()
        self.steps.append(step)
        self.names.append(set(values))

    def histograms(self, step, arrays):
        self.drawn.append(step)


def finished(feed):
    feed.finish()
    feed._thread.join()


def test_after_every_record_but_the_first_a_sink_rests_49_times_as_long_as_it_computed(monkeypatch):
    rests = []

    class Ending(threading.Event):
        def wait(self, timeout=None):
            rests.append(timeout)
            return True

    def computes(step, values):
        start = time.thread_time()
        while time.thread_time() - start < 1e-3:
            pass

    feed = module._Feed(computes)
    feed._ending = Ending()
    for step in range(5):
        feed.add(item(step))
    finished(feed)
    assert rests[0] == 0 and len(rests) == 5
    assert all(rest >= 49e-3 * (1 - 1e-6) for rest in rests[1:])


def test_a_sink_that_waits_without_computing_hardly_rests():
    taken = threading.Event()

    class Waits:
        def __call__(self, step, values):
            time.sleep(0.01)
            if step == 9:
                taken.set()

    feed = module._Feed(Waits())
    for step in range(10):
        feed.add(item(step))
    assert taken.wait(60)
    finished(feed)


def test_the_end_of_the_run_ends_a_rest(monkeypatch):
    monkeypatch.setattr(module, "_SHARE", 1e-9)  # a rest of days
    steps = []
    feed = module._Feed(lambda step, values: steps.append(step))
    for step in range(10):
        feed.add(item(step))
    finished(feed)
    assert steps == list(range(10))


def test_a_sink_with_many_gets_all_that_waits_in_order_and_is_not_called():
    held, batches = Held(), []

    class Many:
        def __call__(self, step, values):
            raise AssertionError

        def many(self, records):
            held(*records[0])
            batches.append(records)

    feed = module._Feed(Many())
    feed.add(item(0))
    assert held.entered.wait(60)
    for step in range(1, 150):
        feed.add(item(step))
    held.go.set()
    finished(feed)
    assert [len(batch) for batch in batches] == [1, 64, 64, 21]
    flat = [record for batch in batches for record in batch]
    assert flat == [(step, {"loss": float(step)}) for step in range(150)]


@pytest.mark.parametrize("records", [40, 100, 1000])
def test_a_sink_that_falls_behind_gets_its_records_evenly_thinned(monkeypatch, capfd, records):
    monkeypatch.setattr(module, "_QUEUE", 16)
    held = Held()
    feed = module._Feed(held)
    feed.add(item(0))
    assert held.entered.wait(60)
    for step in range(1, records):
        feed.add(item(step))
    held.go.set()
    finished(feed)
    gaps = np.diff(held.steps)
    stride = 2 ** int(np.ceil(np.log2(records / 16)))
    assert 8 <= len(held.steps) <= 18 and gaps.max() <= 2 * stride, held.steps
    assert capfd.readouterr().err.count("cannot keep up") == 1


def test_values_by_filter_and_what_is_logged_now_and_then_are_not_left_out(monkeypatch):
    monkeypatch.setattr(module, "_QUEUE", 16)
    held = Held()
    feed = module._Feed(held)
    feed.add(item(0))
    assert held.entered.wait(60)
    for step in range(1, 300):
        feed.add(item(step, filters=step in (31, 77), loss=1.0, **({"validation": 0.5} if step % 100 == 3 else {})))
    held.go.set()
    finished(feed)
    assert [step for step, names in zip(held.steps, held.names, strict=True) if "validation" in names] == [3, 103, 203]
    assert held.drawn == [31, 77] and len(held.steps) < 30


def test_a_sink_that_has_caught_up_gets_every_record_again(monkeypatch):
    monkeypatch.setattr(module, "_QUEUE", 4)
    monkeypatch.setattr(module, "_SHARE", 1.0)
    held = Held()
    feed = module._Feed(held)
    feed.add(item(0))
    assert held.entered.wait(60)
    for step in range(1, 40):
        feed.add(item(step))
    assert feed._stride > 1
    held.go.set()
    step = 40
    while feed._stride > 1:
        feed.add(item(step))
        step += 1
        time.sleep(0.001)
    last = step + 10
    for each in range(step, last):
        feed.add(item(each))
        while not held.steps or held.steps[-1] != each:
            time.sleep(0.001)
    finished(feed)
    assert held.steps[-10:] == list(range(last - 10, last))
