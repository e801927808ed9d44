//! Keys of EMQ 2.x that are accepted without effect, and values that must not be ignored.

/// Environment names of EMQ 2.x and the keys they stand for (SEED-CONF-12).
pub(crate) const EMQ_ENVIRONMENT: &[(&str, &str)] = &[
    ("EMQ_NODE_NAME", "node.name"),
    ("EMQ_NODE_COOKIE", "node.cookie"),
    ("EMQ_MAX_PORTS", "node.max_ports"),
    ("EMQ_TCP_PORT", "listener.tcp.external"),
    ("EMQ_SSL_PORT", "listener.ssl.external"),
    ("EMQ_WS_PORT", "listener.ws.external"),
    ("EMQ_WSS_PORT", "listener.wss.external"),
    ("EMQ_HTTP_PORT", "listener.http.external"),
    ("EMQ_HTTPS_PORT", "listener.https.external"),
];

const ERLANG: &str = "it tunes the Erlang virtual machine, which RingMQ does not have";
const LIMITS: &str = "connections are limited by max_clients of the listener, reactor.descriptors \
    and the limit on open files";
const DISTRIBUTION: &str = "this version runs as a single node";
const DUMP: &str = "RingMQ writes no crash dump of its own; the system's core dumps are used";
const BY_SHARD: &str =
    "subscriptions live on the shard of their client; node.shards sets how many there are";
const NO_PLUGINS: &str = "this version has no plugins";
const NO_BRIDGE: &str = "this version has no bridges";
const NO_HTTP: &str = "this version has no HTTP interface; nothing listens there";
const LOG_STDERR: &str = "this version logs to standard error only; use log.console.level, and the \
    service manager or a pipe to keep the log";
const GC: &str = "memory is given back when a connection is idle; there is no collector to force";

/// `(key or prefix.*, why it has no effect)`; the first that fits holds.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("node.cookie", DISTRIBUTION),
    ("node.smp", ERLANG),
    ("node.kernel_poll", ERLANG),
    ("node.async_threads", ERLANG),
    ("node.process_limit", LIMITS),
    ("node.max_ports", LIMITS),
    ("node.dist_buffer_size", ERLANG),
    ("node.max_ets_tables", ERLANG),
    ("node.fullsweep_after", ERLANG),
    ("node.global_gc_interval", ERLANG),
    ("node.crash_dump", DUMP),
    ("node.heartbeat", ERLANG),
    ("node.dist_net_ticktime", DISTRIBUTION),
    ("node.dist_listen_min", DISTRIBUTION),
    ("node.dist_listen_max", DISTRIBUTION),
    ("node.proto_dist", DISTRIBUTION),
    ("node.ssl_dist_optfile", DISTRIBUTION),
    ("cluster.name", DISTRIBUTION),
    ("cluster.discovery", DISTRIBUTION),
    ("cluster.autoheal", DISTRIBUTION),
    ("cluster.autoclean", DISTRIBUTION),
    ("cluster.proto_dist", DISTRIBUTION),
    ("cluster.static.*", DISTRIBUTION),
    ("cluster.mcast.*", DISTRIBUTION),
    ("cluster.dns.*", DISTRIBUTION),
    ("cluster.etcd.*", DISTRIBUTION),
    ("cluster.k8s.*", DISTRIBUTION),
    ("sysmon.long_gc", ERLANG),
    ("sysmon.long_schedule", ERLANG),
    ("sysmon.large_heap", ERLANG),
    ("sysmon.busy_port", ERLANG),
    ("sysmon.busy_dist_port", ERLANG),
    ("mqtt.pubsub.pool_size", BY_SHARD),
    ("mqtt.pubsub.by_clientid", BY_SHARD),
    ("mqtt.pubsub.async", BY_SHARD),
    ("mqtt.bridge.max_queue_len", NO_BRIDGE),
    ("mqtt.bridge.ping_down_interval", NO_BRIDGE),
    ("mqtt.plugins.etc_dir", NO_PLUGINS),
    ("mqtt.plugins.loaded_file", NO_PLUGINS),
    ("mqtt.plugins.expand_plugins_dir", NO_PLUGINS),
    ("mqtt.conn.force_gc_count", GC),
    ("mqtt.session.collect_interval", "statistics are read when asked for"),
    ("log.console", LOG_STDERR),
    ("log.console.size", LOG_STDERR),
    ("log.console.count", LOG_STDERR),
    ("log.console.file", LOG_STDERR),
    ("log.dir", LOG_STDERR),
    ("log.error.*", LOG_STDERR),
    ("log.info.*", LOG_STDERR),
    ("log.crash", LOG_STDERR),
    ("log.crash.*", LOG_STDERR),
    ("log.syslog", LOG_STDERR),
    ("log.syslog.*", LOG_STDERR),
    ("listener.api.*", NO_HTTP),
    ("listener.http.*", NO_HTTP),
    ("listener.https.*", NO_HTTP),
    ("dashboard.*", NO_HTTP),
];

/// Keys below a listener that are accepted without effect.
const LISTENER_WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("acceptors", "every shard accepts through one request of its ring; there is no pool"),
    (
        "buffer",
        "receive buffers belong to the shard: reactor.recv_buffers and reactor.recv_buffer_size",
    ),
    (
        "tune_buffer",
        "receive buffers belong to the shard: reactor.recv_buffers and reactor.recv_buffer_size",
    ),
];

/// Why the key has no effect and the group its warning belongs to; `None` if it is not such a key.
pub(crate) fn without_effect(key: &str) -> Option<(String, &'static str)> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => key.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()),
        None => key == pattern,
    };
    let (pattern, reason) = WITHOUT_EFFECT.iter().find(|(pattern, _)| fits(pattern))?;
    // One warning for a listener with all its keys; one for each other prefix.
    let group = match key.strip_prefix("listener.") {
        Some(rest) => {
            format!("listener.{}", rest.splitn(3, '.').take(2).collect::<Vec<_>>().join("."))
        }
        None => pattern.trim_end_matches(".*").to_owned(),
    };
    Some((group, reason))
}

/// The same for the part of a key behind the name of a listener.
pub(crate) fn listener_without_effect(option: &str) -> Option<&'static str> {
    LISTENER_WITHOUT_EFFECT.iter().find(|(name, _)| *name == option).map(|(_, reason)| *reason)
}

/// Why a value of a key without effect is refused. To ignore it would open what the file closes, or join nothing where
/// the file says to join.
pub(crate) fn refusal(key: &str, value: &str) -> Option<&'static str> {
    (key == "cluster.discovery" && value != "manual")
        .then_some("this version runs as a single node; remove the key or set it to manual")
}

/// All exact names above, to look for the nearest key.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    WITHOUT_EFFECT.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('*'))
}

/// Names of the keys below a listener that have no effect.
pub(crate) fn listener_names() -> impl Iterator<Item = &'static str> {
    LISTENER_WITHOUT_EFFECT.iter().map(|(name, _)| *name)
}
