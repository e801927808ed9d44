//! What a run does: the options, checked and with all names resolved.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use super::headers::Headers;
use super::names::{ClientIds, Usernames};
use super::options::{CommonArgs, ConnArgs, PubArgs, SubArgs};
use super::payload::{Payload, PayloadTemplate};
use super::random::mix;
use super::topic::TopicTemplate;
use super::topics_payload;
use filter::ClientFilterSettings;

use crate::engine::Route;
use crate::error::BenchError;
use crate::{cli, sys};

/// What the clients do once they are connected.
#[derive(Clone, Debug)]
pub enum Role {
    /// Nothing.
    Conn,
    /// Receive.
    Sub(Subscription),
    /// Send.
    Pub(Publishing),
}

/// What subscribers ask for.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// All go in one SUBSCRIBE.
    pub filters: Vec<TopicTemplate>,
    /// QoS of all.
    pub qos: u8,
    /// What payloads begin with.
    pub headers: Headers,
}

/// One topic that every publisher publishes to, at a pace.
#[derive(Clone, Debug)]
pub struct StreamSpec {
    /// Topic.
    pub topic: TopicTemplate,
    /// Between two messages; 0: as fast as they are acknowledged.
    pub interval: Duration,
    /// QoS.
    pub qos: u8,
    /// Retained.
    pub retain: bool,
    /// Payload.
    pub payload: Payload,
}

/// What publishers send.
#[derive(Clone, Debug)]
pub struct Publishing {
    /// One, but with `--topics-payload`.
    pub streams: Vec<StreamSpec>,
    /// Messages of all clients together; 0: no limit.
    pub limit: u64,
    /// Unacknowledged messages of a client.
    pub window: u16,
    /// Wait until all clients were started.
    pub waits_for_all: bool,
    /// Bounds of the wait before the first message.
    pub random_wait: (Duration, Duration),
    /// After how long an unacknowledged message is sent again.
    pub retry_interval: Option<Duration>,
    /// What payloads begin with.
    pub headers: Headers,
    /// Stay connected after the limit.
    pub keeps_connected: bool,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the clients do.
    pub role: Role,
    /// 3, 4 or 5.
    pub version: u8,
    /// Clients.
    pub count: u32,
    /// Between two connects; 0: as fast as the broker takes them.
    pub connect_interval: Duration,
    targets: Vec<SocketAddr>,
    /// Of each target; empty: MQTT is on the wire.
    layers: Vec<ClientFilterSettings>,
    sources: Vec<SocketAddr>,
    /// Client ids.
    pub ids: ClientIds,
    /// User names.
    pub usernames: Option<Usernames>,
    /// Password.
    pub password: Option<String>,
    /// The first client's number less 1.
    pub start_number: u32,
    /// Of random ids and names.
    pub seed: u64,
    /// How often a first connect is tried again.
    pub connect_retries: u32,
    /// How often a lost client connects again.
    pub reconnects: u32,
    /// Seconds.
    pub keep_alive_s: u16,
    /// Clean session, clean start.
    pub clean: bool,
    /// Seconds.
    pub session_expiry_s: u32,
    /// Print latencies of connecting.
    pub qoe: bool,
    /// ... and write them to this file.
    pub qoe_log: Option<PathBuf>,
    /// Where to serve metrics.
    pub rest_api: Option<SocketAddr>,
    /// Print lines about single clients.
    pub says_clients: bool,
    /// Threads.
    pub threads: usize,
    /// CPUs they run on.
    pub cpus: Vec<usize>,
}

fn bad(text: impl Into<String>) -> BenchError {
    BenchError::Option(text.into())
}

impl Config {
    /// `conn`
    pub fn conn(args: &ConnArgs) -> Result<Config, BenchError> {
        Config::common(&args.common, "conn", || Ok(Role::Conn))
    }

    /// `sub`
    pub fn sub(args: &SubArgs) -> Result<Config, BenchError> {
        Config::common(&args.common, "sub", || {
            Ok(Role::Sub(Subscription {
                filters: args.topic.iter().map(|text| filter(text)).collect::<Result<_, _>>()?,
                qos: args.qos,
                headers: Headers::parse(&args.payload_hdrs).map_err(bad)?,
            }))
        })
    }

    /// `pub`
    pub fn publish(args: &PubArgs) -> Result<Config, BenchError> {
        Config::common(&args.common, "pub", || Ok(Role::Pub(publishing(args)?)))
    }

    fn common(
        args: &CommonArgs,
        kind: &str,
        role: impl FnOnce() -> Result<Role, BenchError>,
    ) -> Result<Config, BenchError> {
        refuse_transports(args)?;
        for text in [&args.username, &args.password, &args.prefix].into_iter().flatten() {
            if text.len() > 60_000 {
                return Err(bad("--username, --password and --prefix have at most 60000 bytes"));
            }
        }
        let available = reactor::available_cpus();
        let cpus = if args.cpu.is_empty() { available.clone() } else { args.cpu.clone() };
        if let Some(cpu) = cpus.iter().find(|cpu| !available.contains(cpu)) {
            return Err(bad(format!("--cpu {cpu}: this process may run on {available:?}")));
        }
        let qoe = match args.qoe.as_str() {
            "true" => true,
            "false" => false,
            "dump" => {
                return Err(bad(
                    "-Q dump converts nothing here: with -Q true, --qoelog FILE is written as CSV at once",
                ));
            }
            other => return Err(bad(format!("-Q is true or false, not {other:?}"))),
        };
        let qoe_log = Some(&args.qoelog).filter(|path| !path.is_empty()).map(PathBuf::from);
        if qoe_log.is_some() && !qoe {
            return Err(bad("--qoelog needs -Q true"));
        }
        let role = role()?;
        let seed = mix(u64::from(std::process::id()) ^ sys::unix_ns());
        let threads = args.threads.map_or(cpus.len(), usize::from);
        let count = usize::try_from(args.count).expect("32 bits fit");
        let ids =
            ClientIds::new(args.prefix.as_deref(), args.shortids, kind, &sys::host_name(), seed);
        Ok(Config {
            role,
            version: args.version,
            count: args.count,
            connect_interval: match args.connrate {
                0 => Duration::from_millis(u64::from(args.interval)),
                rate => Duration::from_nanos(1_000_000_000 / u64::from(rate)),
            },
            rest_api: args.restapi.as_deref().map(rest_address).transpose()?,
            sources: args.ifaddr.as_deref().map_or(Ok(Vec::new()), sources)?,
            targets: targets(&args.host, args.port)?,
            layers: layers(args)?,
            ids,
            usernames: args.username.as_deref().map(Usernames::parse),
            password: args.password.clone(),
            start_number: args.startnumber,
            seed,
            connect_retries: args.num_retry_connect,
            reconnects: args.reconnect,
            keep_alive_s: args.keepalive,
            clean: args.clean,
            session_expiry_s: args.session_expiry,
            qoe,
            qoe_log,
            says_clients: args.log_to == "console",
            threads: threads.min(count),
            cpus,
        })
    }

    /// The number that client `index` of the run is known by.
    pub fn number(&self, index: u32) -> u64 {
        u64::from(self.start_number) + u64::from(index) + 1
    }

    /// The way client `index` takes.
    pub fn route(&self, index: u32) -> Route {
        let pick = |list: &[SocketAddr]| {
            let index = usize::try_from(index).expect("32 bits fit");
            (!list.is_empty()).then(|| list[index % list.len()])
        };
        Route { from: pick(&self.sources), to: pick(&self.targets).expect("a host has an address") }
    }

    /// What stands between the wire and MQTT on this way.
    pub fn layers(&self, index: u32) -> Option<&ClientFilterSettings> {
        let index = usize::try_from(index).expect("32 bits fit");
        (!self.layers.is_empty()).then(|| &self.layers[index % self.layers.len()])
    }

    /// How many local addresses there are to connect from; 1 if the kernel chooses.
    pub fn address_pool(&self) -> usize {
        self.sources.len().max(1)
    }

    /// How many clients share one local address towards one broker, at the most.
    pub fn clients_per_address(&self) -> usize {
        let targets: BTreeSet<&SocketAddr> = self.targets.iter().collect();
        let count = usize::try_from(self.count).expect("32 bits fit");
        count.div_ceil(self.address_pool() * targets.len().max(1))
    }

    /// Appends the client id of client `index`.
    pub fn write_client_id(&self, out: &mut Vec<u8>, index: u32) {
        self.ids.write(out, self.number(index), self.route(index).from);
    }

    /// Appends the user name of client `index`, if there is one.
    pub fn write_username(&self, out: &mut Vec<u8>, index: u32) {
        if let Some(names) = &self.usernames {
            names.write(out, self.number(index), self.seed);
        }
    }
}

/// What is not there.
fn refuse_transports(args: &CommonArgs) -> Result<(), BenchError> {
    if args.quic != "false" || args.load_qst.is_some() {
        return Err(bad(
            "--quic, --load-qst: QUIC is not offered, neither by the broker nor by this tool",
        ));
    }
    if args.signature_algs.is_some() || args.keyex_algs.is_some() {
        return Err(bad(
            "--signature-algs, --keyex-algs: those of the TLS library are used; leave them out",
        ));
    }
    Ok(())
}

/// The layers of each host, in the order of their addresses.
fn layers(args: &CommonArgs) -> Result<Vec<ClientFilterSettings>, BenchError> {
    let settings = |host: &str| args.transport.settings(host.trim(), args.port);
    let all: Vec<Option<ClientFilterSettings>> =
        args.host.split(',').map(settings).collect::<Result<_, _>>()?;
    Ok(all.into_iter().flatten().collect())
}

fn filter(text: &str) -> Result<TopicTemplate, BenchError> {
    check_length(text)?;
    Ok(TopicTemplate::parse_filter(text))
}

fn check_length(text: &str) -> Result<(), BenchError> {
    if text.is_empty() || text.len() > 60_000 {
        return Err(bad("a topic has 1 to 60000 bytes"));
    }
    Ok(())
}

fn topic(text: &str) -> Result<TopicTemplate, BenchError> {
    check_length(text)?;
    TopicTemplate::parse(text).map_err(|variable| {
        bad(format!("{:?} in topic {text:?}: %rand_N takes a number", variable.0))
    })
}

fn publishing(args: &PubArgs) -> Result<Publishing, BenchError> {
    let headers = Headers::parse(&args.payload_hdrs).map_err(bad)?;
    if args.min_random_wait > args.max_random_wait {
        return Err(bad("--min-random-wait is larger than --max-random-wait"));
    }
    let streams = match (&args.topics_payload, args.topic.first()) {
        (Some(path), _) => topics_payload::read(path).map_err(bad)?,
        (None, Some(text)) => vec![StreamSpec {
            topic: topic(text)?,
            interval: Duration::from_millis(args.interval_of_msg),
            qos: args.qos,
            retain: args.retain,
            payload: payload(args)?,
        }],
        (None, None) => return Err(bad("pub needs a topic: give --topic or --topics-payload")),
    };
    let window = match (&args.topics_payload, args.inflight) {
        (None, _) => 1,
        (Some(_), 0) => u16::MAX,
        (Some(_), inflight) => inflight,
    };
    Ok(Publishing {
        streams,
        limit: args.limit,
        window,
        waits_for_all: args.wait_before_publishing,
        random_wait: (
            Duration::from_millis(args.min_random_wait),
            Duration::from_millis(args.max_random_wait),
        ),
        retry_interval: Some(Duration::from_secs(u64::from(args.retry_interval)))
            .filter(|interval| !interval.is_zero()),
        headers,
        keeps_connected: args.keep_connected,
    })
}

fn payload(args: &PubArgs) -> Result<Payload, BenchError> {
    let size = usize::try_from(args.size).expect("32 bits fit");
    match &args.message {
        None => Ok(Payload::of_size(size)),
        Some(text) => match text.strip_prefix("template://") {
            None => Ok(Payload::Fixed(text.clone().into_bytes())),
            Some(path) => {
                let path = PathBuf::from(path);
                let text = std::fs::read(&path)
                    .map_err(|source| BenchError::File { path: path.clone(), source })?;
                Ok(Payload::Template(PayloadTemplate::parse(&text, size)))
            }
        },
    }
}

/// `IP:PORT` or `PORT`.
fn rest_address(text: &str) -> Result<SocketAddr, BenchError> {
    let port_only = || text.parse().ok().map(|port: u16| SocketAddr::from(([0, 0, 0, 0], port)));
    text.parse()
        .ok()
        .or_else(port_only)
        .filter(|address| address.port() > 0)
        .ok_or_else(|| bad(format!("--restapi is IP:PORT or PORT, not {text:?}")))
}

/// One address for each host.
fn targets(hosts: &str, port: u16) -> Result<Vec<SocketAddr>, BenchError> {
    hosts
        .split(',')
        .map(str::trim)
        .map(|host| {
            let found = (host, port)
                .to_socket_addrs()
                .map_err(|source| BenchError::Resolve { host: host.to_owned(), source })?;
            let found: Vec<SocketAddr> = found.collect();
            // A broker on this machine may listen on 127.0.0.1 only, and localhost is ::1 too.
            let best = found.iter().find(|address| address.is_ipv4()).or(found.first());
            best.copied().ok_or_else(|| BenchError::NoAddress { host: host.to_owned() })
        })
        .collect()
}

fn sources(text: &str) -> Result<Vec<SocketAddr>, BenchError> {
    let mut sources: Vec<IpAddr> = Vec::new();
    for part in text.split(',') {
        match part.trim().parse() {
            Ok(address) => sources.push(address),
            Err(_) => sources.extend(cli::parse_sources(part)?.into_iter().map(IpAddr::V4)),
        }
    }
    Ok(sources.into_iter().map(|address| SocketAddr::new(address, 0)).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn config(text: &str) -> Result<Config, String> {
        let words = ["ringmq-bench"].into_iter().chain(text.split_whitespace());
        let config = match Cli::try_parse_from(words).expect(text).command {
            Command::Conn(args) => Config::conn(&args),
            Command::Sub(args) => Config::sub(&args),
            Command::Pub(args) => Config::publish(&args),
            _ => panic!("{text} is none of the three"),
        };
        config.map_err(|error| error.to_string())
    }

    fn error(text: &str) -> String {
        config(text).map(|_| ()).expect_err(text)
    }

    #[test]
    fn a_rate_wins_over_an_interval_and_any_rate_works() {
        let interval = |text: &str| config(text).expect("valid").connect_interval;
        assert_eq!(interval("conn -h 127.0.0.1"), Duration::from_millis(10));
        assert_eq!(interval("conn -h 127.0.0.1 -i 0"), Duration::ZERO);
        assert_eq!(interval("conn -h 127.0.0.1 -i 3 -R 500"), Duration::from_millis(2));
        assert_eq!(interval("conn -h 127.0.0.1 -c 3 -R 5000"), Duration::from_micros(200));
    }

    #[test]
    fn clients_take_hosts_and_local_addresses_in_turn() {
        let config = config("conn -h 127.0.0.1,127.0.0.2 -p 5 --ifaddr 127.0.1.1-127.0.1.3 -n 100")
            .expect("valid");
        assert_eq!(config.address_pool(), 3);
        assert_eq!(config.clients_per_address(), 34, "200 over 6 ways");
        let route = config.route(5);
        assert_eq!(route.to.to_string(), "127.0.0.2:5");
        assert_eq!(route.from.expect("an address").to_string(), "127.0.1.3:0");
        assert_eq!(config.number(0), 101);
        let mut id = Vec::new();
        config.write_client_id(&mut id, 5);
        assert!(id.starts_with(b"127.0.1.3_bench_conn_") && id.ends_with(b"_106"));
    }

    #[test]
    fn without_topics_payload_one_message_is_in_flight() {
        let window = |text: &str| match config(text).expect("valid").role {
            Role::Pub(spec) => spec.window,
            _ => panic!("pub"),
        };
        assert_eq!(window("pub -h 127.0.0.1 -t a -F 10"), 1);
        let file = std::env::temp_dir().join(format!("ringmq-bench-{}.json", std::process::id()));
        std::fs::write(&file, r#"{"topics":[{"name":"a","interval_ms":"1"}]}"#).expect("written");
        let base = format!("pub -h 127.0.0.1 --topics-payload {} -F", file.display());
        assert_eq!(window(&format!("{base} 10")), 10);
        assert_eq!(window(&format!("{base} 0")), u16::MAX);
        std::fs::remove_file(&file).expect("removed");
    }

    #[test]
    fn what_cannot_be_done_is_said_in_one_line() {
        for (text, reason) in [
            ("conn --quic true", "QUIC"),
            ("conn --load-qst f", "QUIC"),
            ("conn -S --certfile f", "together"),
            ("conn --ssl-version tlsv1.1", "tlsv1.2"),
            ("conn -S --signature-algs a", "--signature-algs"),
            ("conn -Q dump", "CSV"),
            ("conn --qoelog f", "-Q true"),
            ("conn --restapi x", "--restapi"),
            ("conn --restapi 0", "--restapi"),
            ("conn -h 127.0.0.1 --ifaddr 1.2.3", "--ifaddr"),
            ("conn -h 127.0.0.1 --cpu 9999", "--cpu"),
            ("conn -h no-such-host.invalid", "no-such-host.invalid"),
            ("pub", "topic"),
            ("pub -t a/%rand_x", "%rand_"),
            ("pub -t a --payload-hdrs cnt32", "cnt64"),
            ("pub -t a --min-random-wait 2 --max-random-wait 1", "random-wait"),
            ("pub -t a -m template:///no/such/file", "/no/such/file"),
            ("pub --topics-payload /no/such/file", "/no/such/file"),
        ] {
            let error = error(text);
            assert!(error.contains(reason) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn each_host_has_its_layers() {
        let config = config("conn -h 127.0.0.1,127.0.0.2 -p 8084 -S --ws").expect("valid");
        let host = |index: u32| {
            config.layers(index).expect("layers").websocket.clone().expect("a WebSocket").host
        };
        assert_eq!((host(0), host(3)), ("127.0.0.1:8084".to_owned(), "127.0.0.2:8084".to_owned()));
    }

    #[test]
    fn metrics_are_served_where_it_is_said() {
        let address = |text: &str| config(text).expect("valid").rest_api.expect("one").to_string();
        assert_eq!(address("conn -h 127.0.0.1 --restapi 8088"), "0.0.0.0:8088");
        assert_eq!(address("conn -h 127.0.0.1 --restapi 127.0.0.1:8088"), "127.0.0.1:8088");
    }
}
