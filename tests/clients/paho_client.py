#!/usr/bin/env python3
"""paho-mqtt against a broker: publish and subscribe at every QoS, retained message, will, session, and for MQTT 5 some properties.

usage: paho_client.py HOST PORT VERSION [TRANSPORT [CAFILE [CERTFILE KEYFILE]]]     VERSION is 3, 4 or 5; TRANSPORT is tcp (default)
or websockets; with CAFILE it is over TLS. Exit code 0: all as expected.
"""

import queue
import sys
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

HOST, PORT, VERSION = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
TRANSPORT, CA_FILE, CERT_FILE, KEY_FILE = (sys.argv[4:] + ["tcp", None, None, None][len(sys.argv[4:]) :])[:4]
PREFIX = "paho/%s" % uuid.uuid4().hex
WAIT_S = 5


class Client:
    """A client whose messages and acknowledgements are waited for."""

    def __init__(self, client_id=None, clean=True, will=None, expiry=0):
        self.messages, self.subscribed, self.connected = queue.Queue(), queue.Queue(), queue.Queue()
        options = {} if VERSION == 5 else {"clean_session": clean}
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id or uuid.uuid4().hex[:20],
            protocol=VERSION,
            transport=TRANSPORT,
            reconnect_on_failure=False,
            **options,
        )
        self.mqtt.on_message = lambda client, data, message: self.messages.put(message)
        self.mqtt.on_subscribe = lambda client, data, mid, codes, properties: self.subscribed.put(codes)
        self.mqtt.on_connect = lambda client, data, flags, code, properties: self.connected.put((flags, code))
        if CA_FILE:
            self.mqtt.tls_set(CA_FILE, CERT_FILE, KEY_FILE)
        if will:
            self.mqtt.will_set(*will)
        connect = {}
        if VERSION == 5:
            connect = {"clean_start": clean, "properties": Properties(PacketTypes.CONNECT)}
            connect["properties"].SessionExpiryInterval = expiry
        self.mqtt.connect(HOST, PORT, 60, **connect)
        self.mqtt.loop_start()
        self.flags, code = self.connected.get(timeout=WAIT_S)
        assert not code.is_failure, code

    def subscribe(self, topic, qos):
        if VERSION == 5:
            self.mqtt.subscribe(topic, options=SubscribeOptions(qos=qos))
        else:
            self.mqtt.subscribe(topic, qos)
        codes = self.subscribed.get(timeout=WAIT_S)
        assert [code.value for code in codes] == [qos], codes

    def publish(self, topic, payload, qos, retain=False, properties=None):
        info = self.mqtt.publish(topic, payload, qos, retain, properties)
        info.wait_for_publish(WAIT_S)
        assert info.is_published(), "no acknowledgement"

    def message(self):
        return self.messages.get(timeout=WAIT_S)

    def nothing(self):
        try:
            message = self.messages.get(timeout=0.3)
        except queue.Empty:
            return
        raise AssertionError("unexpected %s %s" % (message.topic, message.payload))

    def close(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def cut(self):
        self.mqtt.socket().close()
        self.mqtt.loop_stop()


def publish_and_subscribe():
    subscriber, publisher = Client(), Client()
    subscriber.subscribe(PREFIX + "/qos/#", 2)
    for qos in (0, 1, 2):
        for number in range(20):
            publisher.publish("%s/qos/%d" % (PREFIX, qos), "%d" % number, qos)
        for number in range(20):
            message = subscriber.message()
            assert (message.topic, message.payload) == ("%s/qos/%d" % (PREFIX, qos), b"%d" % number)
            assert (message.qos, message.retain) == (qos, False)
    large = bytes(range(256)) * 200
    publisher.publish(PREFIX + "/qos/large", large, 2)
    assert subscriber.message().payload == large
    subscriber.nothing()
    subscriber.close()
    publisher.close()


def retained():
    topic = PREFIX + "/retained"
    client = Client()
    client.publish(topic, "kept", 1, retain=True)
    client.subscribe(topic, 1)
    message = client.message()
    assert (message.payload, message.retain) == (b"kept", True)
    client.publish(topic, "", 1, retain=True)
    assert client.message().payload == b""
    client.close()


def will():
    topic = PREFIX + "/will"
    watcher = Client()
    watcher.subscribe(topic, 1)
    Client(will=(topic, "gone", 1, False)).close()
    watcher.nothing()
    Client(will=(topic, "gone", 1, False)).cut()
    assert watcher.message().payload == b"gone"
    watcher.close()


def session():
    topic, client_id = PREFIX + "/session", uuid.uuid4().hex[:20]
    client = Client(client_id, clean=False, expiry=60)
    assert not client.flags.session_present
    client.subscribe(topic, 2)
    client.close()
    publisher = Client()
    for qos in (1, 2):
        publisher.publish(topic, "kept %d" % qos, qos)
    publisher.close()
    client = Client(client_id, clean=False, expiry=60)
    assert client.flags.session_present or VERSION == 3  # 3.1 has no such flag
    for qos in (1, 2):
        assert client.message().payload == b"kept %d" % qos
    client.close()


def properties():
    topic = PREFIX + "/properties"
    client = Client()
    client.subscribe(topic, 1)
    sent = Properties(PacketTypes.PUBLISH)
    sent.UserProperty = [("b", "1"), ("a", "2")]
    sent.ContentType, sent.ResponseTopic, sent.CorrelationData = "text", "reply", b"\x00\x01"
    client.publish(topic, "x", 1, properties=sent)
    got = client.message().properties
    assert got.UserProperty == [("b", "1"), ("a", "2")], got
    assert (got.ContentType, got.ResponseTopic, got.CorrelationData) == ("text", "reply", b"\x00\x01")
    client.close()


for step in [publish_and_subscribe, retained, will, session] + ([properties] if VERSION == 5 else []):
    print(step.__name__, flush=True)
    step()
