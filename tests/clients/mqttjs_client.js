// MQTT.js against a broker: publish and subscribe at every QoS, retained message, will, session, and for MQTT 5 some properties.
//
// usage: node mqttjs_client.js MODULE HOST PORT VERSION [PROTOCOL [CAFILE]]     MODULE is the folder of MQTT.js; VERSION is 3, 4 or 5;
// PROTOCOL is mqtt (default), mqtts, ws or wss. Exit code 0: all as expected.
"use strict";

const assert = require("node:assert");
const crypto = require("node:crypto");
const fs = require("node:fs");

const [modulePath, host, port, versionText, protocol = "mqtt", caFile] = process.argv.slice(2);
const mqtt = require(modulePath);
const version = Number(versionText);
const tls = caFile ? { ca: fs.readFileSync(caFile) } : {};
const path = protocol.startsWith("ws") ? { path: "/mqtt" } : {};
const prefix = `mqttjs/${crypto.randomUUID()}`;
const waitMs = 5000;

setTimeout(() => {
  console.error("not finished in 30 s");
  process.exit(1);
}, 30000).unref();

function within(promise, what) {
  const timeout = new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`no ${what} within ${waitMs} ms`)), waitMs).unref();
  });
  return Promise.race([promise, timeout]);
}

/** A client whose messages are waited for. */
class Client {
  static async open(options = {}) {
    const client = new Client();
    client.messages = [];
    client.waiting = [];
    const id = crypto.randomUUID().slice(0, 20);
    const versions = { 3: "MQIsdp", 4: "MQTT", 5: "MQTT" };
    client.mqtt = mqtt.connect({
      host, port: Number(port), protocol, protocolVersion: version, protocolId: versions[version], ...tls, ...path,
      clientId: id, clean: true, reconnectPeriod: 0, ...options,
    });
    client.mqtt.on("message", (topic, payload, packet) => {
      const next = client.waiting.shift();
      if (next) next(packet); else client.messages.push(packet);
    });
    client.connack = await within(new Promise((resolve, reject) => {
      client.mqtt.on("connect", resolve);
      client.mqtt.on("error", reject);
    }), "CONNACK");
    return client;
  }
  async subscribe(topic, qos) {
    const granted = await within(this.mqtt.subscribeAsync(topic, { qos }), "SUBACK");
    assert.strictEqual(granted[0].qos, qos);
  }
  publish(topic, payload, options) {
    return within(this.mqtt.publishAsync(topic, payload, options), "acknowledgement");
  }
  message() {
    if (this.messages.length > 0) return Promise.resolve(this.messages.shift());
    return within(new Promise((resolve) => this.waiting.push(resolve)), "message");
  }
  async nothing() {
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.deepStrictEqual(this.messages, []);
  }
  close() {
    return within(this.mqtt.endAsync(), "end");
  }
}

const steps = {
  async publishAndSubscribe() {
    const subscriber = await Client.open();
    const publisher = await Client.open();
    await subscriber.subscribe(`${prefix}/qos/#`, 2);
    for (const qos of [0, 1, 2]) {
      for (let number = 0; number < 20; number += 1) await publisher.publish(`${prefix}/qos/${qos}`, `${number}`, { qos });
      for (let number = 0; number < 20; number += 1) {
        const message = await subscriber.message();
        assert.strictEqual(message.topic, `${prefix}/qos/${qos}`);
        assert.strictEqual(message.payload.toString(), `${number}`);
        assert.strictEqual(message.qos, qos);
        assert.strictEqual(message.retain, false);
      }
    }
    const large = Buffer.alloc(50000, 7);
    await publisher.publish(`${prefix}/qos/large`, large, { qos: 2 });
    assert.ok((await subscriber.message()).payload.equals(large));
    await subscriber.nothing();
    await subscriber.close();
    await publisher.close();
  },
  async retained() {
    const topic = `${prefix}/retained`;
    const client = await Client.open();
    await client.publish(topic, "kept", { qos: 1, retain: true });
    await client.subscribe(topic, 1);
    const message = await client.message();
    assert.strictEqual(message.payload.toString(), "kept");
    assert.strictEqual(message.retain, true);
    await client.publish(topic, "", { qos: 1, retain: true });
    await client.close();
  },
  async will() {
    const topic = `${prefix}/will`;
    const watcher = await Client.open();
    await watcher.subscribe(topic, 1);
    const will = { topic, payload: Buffer.from("gone"), qos: 1, retain: false };
    await (await Client.open({ will })).close();
    await watcher.nothing();
    (await Client.open({ will })).mqtt.stream.destroy();
    assert.strictEqual((await watcher.message()).payload.toString(), "gone");
    await watcher.close();
  },
  async session() {
    const topic = `${prefix}/session`;
    const options = { clientId: crypto.randomUUID().slice(0, 20), clean: false };
    if (version === 5) options.properties = { sessionExpiryInterval: 60 };
    let client = await Client.open(options);
    assert.ok(!client.connack.sessionPresent);
    await client.subscribe(topic, 2);
    await client.close();
    const publisher = await Client.open();
    for (const qos of [1, 2]) await publisher.publish(topic, `kept ${qos}`, { qos });
    await publisher.close();
    client = await Client.open(options);
    assert.ok(client.connack.sessionPresent || version === 3); // 3.1 has no such flag
    for (const qos of [1, 2]) assert.strictEqual((await client.message()).payload.toString(), `kept ${qos}`);
    await client.close();
  },
  async properties() {
    if (version < 5) return;
    const topic = `${prefix}/properties`;
    const client = await Client.open({ properties: { topicAliasMaximum: 5 }, autoUseTopicAlias: true });
    await client.subscribe(topic, 1);
    const properties = {
      contentType: "text", responseTopic: "reply", correlationData: Buffer.from([0, 1]), userProperties: { a: ["1", "2"] },
    };
    for (let round = 0; round < 3; round += 1) {
      await client.publish(topic, "x", { qos: 1, properties });
      const message = await client.message();
      assert.strictEqual(message.topic === "" || message.topic === topic, true);
      assert.strictEqual(message.properties.contentType, "text");
      assert.strictEqual(message.properties.responseTopic, "reply");
      assert.ok(message.properties.correlationData.equals(Buffer.from([0, 1])));
      assert.deepStrictEqual([...message.properties.userProperties.a], ["1", "2"]);
    }
    await client.close();
  },
};

(async () => {
  for (const [name, step] of Object.entries(steps)) {
    console.log(name);
    await step();
  }
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
