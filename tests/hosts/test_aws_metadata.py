"""What an instance is told of itself and of its end, by a metadata service that wants a token."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

import pytest
from imds import Imds

from runctl.hosts.aws import ENDPOINT_ENV, InstanceFacts, InstanceNotices, Metadata, Notice, instance_facts


@pytest.fixture
def imds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Imds]:
    server = Imds()
    monkeypatch.setenv(ENDPOINT_ENV, server.url)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    yield server
    server.shut()


@pytest.fixture
def heard() -> queue.SimpleQueue[Notice]:
    return queue.SimpleQueue()


def test_an_instance_says_what_it_is(imds: Imds) -> None:
    assert instance_facts() == InstanceFacts("i-0123456789abcdef0", "g5.xlarge", "us-east-1b", "spot")
    assert imds.issued == 1


def test_what_it_does_not_say_is_none(imds: Imds) -> None:
    del imds.paths["instance-life-cycle"]
    facts = instance_facts()
    assert facts is not None and facts.market is None and facts.instance_id


def test_a_machine_without_the_service_is_no_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Imds()
    server.shut()
    monkeypatch.setenv(ENDPOINT_ENV, server.url)
    assert instance_facts() is None


def test_a_token_that_is_no_longer_good_is_renewed(imds: Imds) -> None:
    metadata = Metadata()
    assert metadata.read("instance-id")
    imds.tokens.clear()
    assert metadata.read("instance-id") == "i-0123456789abcdef0"
    assert imds.issued == 2


def test_a_service_that_hangs_is_left_after_two_seconds(imds: Imds) -> None:
    imds.silent_s = 30
    began = time.monotonic()
    with pytest.raises(OSError):
        Metadata().read("instance-id")
    assert time.monotonic() - began < 10


def test_a_notice_is_told_once_with_its_time(imds: Imds, heard: queue.SimpleQueue[Notice]) -> None:
    notices = InstanceNotices(heard.put)
    notices.INTERVAL_S = 0.05  # type: ignore[misc]
    notices.start()
    try:
        time.sleep(0.3)
        assert heard.empty()
        at = imds.interrupt(120)
        assert heard.get(timeout=20) == Notice("interruption", "terminate", at)
        time.sleep(0.3)
        assert heard.empty()
    finally:
        notices.end()


def test_a_notice_is_heard_though_the_service_failed_before(
    monkeypatch: pytest.MonkeyPatch, heard: queue.SimpleQueue[Notice], imds: Imds
) -> None:
    imds.silent_s = 30
    notices = InstanceNotices(heard.put)
    notices.INTERVAL_S = 0.05  # type: ignore[misc]
    notices.start()
    try:
        time.sleep(0.2)
        imds.interrupt(120)
        imds.silent_s = 0
        assert heard.get(timeout=30).kind == "interruption"
    finally:
        notices.end()


def test_recommendations_are_looked_for_only_where_they_are_wanted(
    imds: Imds, heard: queue.SimpleQueue[Notice]
) -> None:
    imds.paths["events/recommendations/rebalance"] = '{"noticeTime": "2026-01-02T03:04:05Z"}'
    deaf: queue.SimpleQueue[Notice] = queue.SimpleQueue()
    both = [InstanceNotices(deaf.put), InstanceNotices(heard.put, rebalance=True)]
    for notices in both:
        notices.start()
    try:
        assert heard.get(timeout=20) == Notice("rebalance", "", 1767323045.0)
        time.sleep(0.2)
        assert deaf.empty()
    finally:
        for notices in both:
            notices.end()


def test_a_notice_that_is_not_understood_counts_all_the_same(imds: Imds, heard: queue.SimpleQueue[Notice]) -> None:
    imds.paths["spot/instance-action"] = "something new"
    notices = InstanceNotices(heard.put)
    notices.start()
    try:
        notice = heard.get(timeout=20)
    finally:
        notices.end()
    assert notice.kind == "interruption"
    assert 60 < notice.at - time.time() <= 120


def test_the_thread_ends_when_it_is_told_to(imds: Imds, heard: queue.SimpleQueue[Notice]) -> None:
    notices = InstanceNotices(heard.put)
    notices.start()
    notices.end()
    notices.join(20)
    assert notices not in threading.enumerate()
