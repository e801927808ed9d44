//! The command lines of `conn`, `sub` and `pub`: emqtt_bench's options, and a few of ours.
//!
//! As in emqtt_bench `-h` is the host, a boolean is given bare or with a value (`-S`, `-S true`, `-C false`), and of an
//! option given twice the last counts.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::transport::TransportArgs;

/// Options of `conn`, `sub` and `pub`.
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Does nothing here (an Erlang node's distribution port)
    #[arg(short = 'd', long)]
    dist: bool,
    /// Host or hosts, comma-separated: client k takes host k modulo their number
    #[arg(short = 'h', long, default_value = "localhost")]
    pub host: String,
    /// Port; the same default for TLS and WebSocket
    #[arg(short, long, default_value_t = 1883, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Protocol version: 3, 4 or 5
    #[arg(short = 'V', long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=5))]
    pub version: u8,
    /// Number of clients
    #[arg(short, long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub count: u32,
    /// Connections per second; 0: use --interval
    #[arg(short = 'R', long, default_value_t = 0)]
    pub connrate: u32,
    /// Milliseconds between two connections; 0: as fast as the broker takes them
    #[arg(short, long, default_value_t = 10)]
    pub interval: u32,
    /// Local addresses, comma-separated, ranges too (127.0.1.1-127.0.1.60); client k takes address k modulo their number
    #[arg(long)]
    pub ifaddr: Option<String>,
    /// Begin of the client ids
    #[arg(long)]
    pub prefix: Option<String>,
    /// Client ids are the number alone (behind --prefix, if given)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub shortids: bool,
    /// The first client's number is this + 1
    #[arg(short = 'n', long, default_value_t = 0)]
    pub startnumber: u32,
    /// How often a client whose first connect failed tries again, at once
    #[arg(long, default_value_t = 0)]
    pub num_retry_connect: u32,
    /// How often a client that lost its connection connects again, after 1 to 5 seconds; counted anew after a success
    #[arg(long, default_value_t = 0)]
    pub reconnect: u32,
    /// TLS and WebSocket.
    #[command(flatten)]
    pub transport: TransportArgs,
    /// TLS 1.3: signature algorithms, comma-separated (refused: those of the TLS library are used)
    #[arg(long)]
    pub signature_algs: Option<String>,
    /// TLS 1.3: key exchange algorithms, comma-separated (refused: those of the TLS library are used)
    #[arg(long)]
    pub keyex_algs: Option<String>,
    /// QUIC (refused: this tool has none)
    #[arg(long, num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub quic: String,
    /// QUIC session tickets (refused: this tool has no QUIC)
    #[arg(long)]
    pub load_qst: Option<PathBuf>,
    /// User name; the whole of it may be %i (the client's number) or %rand_N (1 to N)
    #[arg(short, long, allow_hyphen_values = true)]
    pub username: Option<String>,
    /// Password
    #[arg(short = 'P', long, allow_hyphen_values = true)]
    pub password: Option<String>,
    /// Keep alive in seconds; 0: off
    #[arg(short, long, default_value_t = 300)]
    pub keepalive: u16,
    /// Clean session, clean start
    #[arg(short = 'C', long, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub clean: bool,
    /// MQTT 5: Session Expiry Interval in seconds, always sent
    #[arg(short = 'x', long, default_value_t = 0)]
    pub session_expiry: u32,
    /// Does nothing here: clients have no buffers of their own while they are idle
    #[arg(short, long)]
    lowmem: bool,
    /// Does nothing here (Erlang's garbage collector), in milliseconds
    #[arg(long, default_value_t = 0)]
    force_major_gc_interval: u64,
    /// true: print the latencies of handshake, connect, subscribe and first publish
    #[arg(short = 'Q', long, num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub qoe: String,
    /// Write the latencies of each client to this file, as CSV; with -Q true
    #[arg(long, default_value = "")]
    pub qoelog: String,
    /// Count into Prometheus metrics (they are always counted here)
    #[arg(long)]
    prometheus: bool,
    /// Serve GET /metrics on IP:PORT, or on PORT of all addresses
    #[arg(long)]
    pub restapi: Option<String>,
    /// Lines about single clients: console or null
    #[arg(long = "log_to", default_value = "console", value_parser = ["console", "null"])]
    pub log_to: String,
    /// Threads [default: one for each CPU this process may use]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Not in emqtt_bench")]
    pub threads: Option<u16>,
    /// CPUs for the threads, as in 1 or 1,3 [default: all this process may use]
    #[arg(long, value_delimiter = ',', help_heading = "Not in emqtt_bench")]
    pub cpu: Vec<usize>,
}

/// Options of `conn`.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true, args_override_self = true)]
pub struct ConnArgs {
    /// Those of all three.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `sub`.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true, args_override_self = true)]
pub struct SubArgs {
    /// Those of all three.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Topic filter, repeatable; all go in one SUBSCRIBE. Whole levels may be %u (user), %c (client id) or %i (client's number)
    #[arg(short, long, required = true, action = ArgAction::Append)]
    pub topic: Vec<String>,
    /// QoS of the subscriptions
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// What payloads begin with, in this order: cnt64, ts
    #[arg(long, default_value = "")]
    pub payload_hdrs: String,
}

/// Options of `pub`.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true, args_override_self = true)]
pub struct PubArgs {
    /// Those of all three.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Topic; whole levels may be %u (user), %c (client id), %i (client's number), %s (message number), %rand_N (1 to N)
    #[arg(short, long, action = ArgAction::Append)]
    pub topic: Vec<String>,
    /// Milliseconds between two messages of a client; 0: as fast as they are acknowledged
    #[arg(short = 'I', long = "interval_of_msg", default_value_t = 1000)]
    pub interval_of_msg: u64,
    /// Bytes of a payload; headers come on top
    #[arg(short, long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=268_000_000))]
    pub size: u32,
    /// The payload, or template://FILE with %TIMESTAMP% %TIMESTAMPMS% %TIMESTAMPUS% %TIMESTAMPNS% %UNIQUE% %RANDOM%
    #[arg(short, long, allow_hyphen_values = true)]
    pub message: Option<String>,
    /// JSON file: several topics for each client, published independently
    #[arg(long)]
    pub topics_payload: Option<PathBuf>,
    /// QoS of the messages
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Retain the messages
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub retain: bool,
    /// Messages in all, of all clients together; 0: no limit
    #[arg(short = 'L', long, default_value_t = 0)]
    pub limit: u64,
    /// With --topics-payload: messages of a client that wait for their acknowledgement; 0: no limit
    #[arg(short = 'F', long, default_value_t = 1)]
    pub inflight: u16,
    /// Begin to publish when the last client was started
    #[arg(short = 'w', long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub wait_before_publishing: bool,
    /// Longest random wait of a publisher before its first message, in milliseconds
    #[arg(long, default_value_t = 0)]
    pub max_random_wait: u64,
    /// Shortest random wait of a publisher before its first message, in milliseconds
    #[arg(long, default_value_t = 0)]
    pub min_random_wait: u64,
    /// Send what is not acknowledged again after so many seconds; 0: never
    #[arg(long, default_value_t = 0)]
    pub retry_interval: u32,
    /// What payloads begin with, in this order: cnt64 (8 bytes, counted by publisher), ts (8 bytes, Unix ms)
    #[arg(long, default_value = "")]
    pub payload_hdrs: String,
    /// Stay connected after --limit; the run then ends by a signal only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub keep_connected: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(text: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(["ringmq-bench"].into_iter().chain(text.split_whitespace()))
            .map(|cli| cli.command)
    }

    fn conn(text: &str) -> CommonArgs {
        match parse(&format!("conn {text}")) {
            Ok(Command::Conn(args)) => args.common,
            other => panic!("{text}: {:?}", other.err()),
        }
    }

    fn sub(text: &str) -> SubArgs {
        match parse(&format!("sub {text}")) {
            Ok(Command::Sub(args)) => *args,
            other => panic!("{text}: {:?}", other.err()),
        }
    }

    fn publish(text: &str) -> PubArgs {
        match parse(&format!("pub {text}")) {
            Ok(Command::Pub(args)) => *args,
            other => panic!("{text}: {:?}", other.err()),
        }
    }

    #[test]
    fn defaults_are_those_of_emqtt_bench() {
        let args = conn("");
        assert_eq!(args.host, "localhost");
        assert_eq!((args.port, args.version, args.count), (1883, 5, 200));
        assert_eq!((args.connrate, args.interval, args.startnumber), (0, 10, 0));
        assert_eq!((args.keepalive, args.clean, args.session_expiry), (300, true, 0));
        assert_eq!((args.num_retry_connect, args.reconnect), (0, 0));
        assert!(!args.transport.ssl && !args.transport.ws && !args.shortids);
        let args = publish("");
        assert_eq!((args.interval_of_msg, args.size, args.qos, args.limit), (1000, 256, 0, 0));
        assert_eq!((args.inflight, args.retry_interval), (1, 0));
        assert!(!args.retain && !args.wait_before_publishing && !args.keep_connected);
    }

    #[test]
    fn values_come_in_all_four_forms() {
        for text in ["-c 10", "-c10", "--count 10", "--count=10"] {
            assert_eq!(conn(text).count, 10, "{text}");
        }
        assert_eq!(conn("-c 5 -c 7").count, 7, "the last counts");
        assert_eq!(conn("-h a,b -p 1 -V 3 -R 500 -i 0 -n 9 -k 0 -x 60").host, "a,b");
        assert_eq!(conn("-u me -P -secret").password.as_deref(), Some("-secret"));
    }

    #[test]
    fn booleans_are_bare_or_have_a_value() {
        for (text, ssl, clean) in [
            ("-S", true, true),
            ("-S true", true, true),
            ("-S false", false, true),
            ("--ssl=true -C false", true, false),
            ("-C false -S", true, false),
            ("-C", false, true),
            ("--clean false --ssl", true, false),
        ] {
            let args = conn(text);
            assert_eq!((args.transport.ssl, args.clean), (ssl, clean), "{text}");
        }
        let args = publish("-t a -r -w true --keep-connected -q 1");
        assert!(args.retain && args.wait_before_publishing && args.keep_connected);
        assert_eq!(args.qos, 1);
        assert!(parse("conn -S maybe").is_err());
    }

    #[test]
    fn topics_are_repeatable_and_required_for_sub() {
        assert_eq!(sub("-t a -t b --topic=c -q 2").topic, ["a", "b", "c"]);
        let error = parse("sub -q 1").map(|_| ()).expect_err("no topic").to_string();
        assert!(error.contains("--topic"), "{error}");
    }

    #[test]
    fn options_of_emqtt_bench_that_mean_nothing_here_are_taken() {
        conn("-d -l --lowmem --dist --force-major-gc-interval 1000 --prometheus --log_to null");
        conn("--ssl-version tlsv1.3 --cacertfile a --certfile b --keyfile c --ciphers d");
        conn("--signature-algs a --keyex-algs b --quic false --load-qst f -Q true --qoelog x");
        conn("--quic -Q");
        publish(
            "-t a --topics-payload f -F 0 --max-random-wait 5 --min-random-wait 1 -I 0 -L5 -s 0",
        );
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for text in [
            "conn --nonsense",
            "conn -p 0",
            "conn -p 70000",
            "conn -V 6",
            "conn -c 0",
            "conn -c x",
            "conn -t a",
            "sub -t a -q 3",
            "sub -t a -s 1",
            "pub -I -1 -t a",
            "conn --threads 0",
            "conn --log_to file",
        ] {
            let error = parse(text).map(|_| ()).expect_err(text);
            assert!(error.use_stderr(), "{text}");
        }
        let help = parse("sub --help").map(|_| ()).expect_err("help").to_string();
        assert!(help.contains("-h, --host"), "{help}");
    }
}
