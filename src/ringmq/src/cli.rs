//! The command line: what can be typed, and its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  ringmq start                                    # run a broker in the background, on port 1883
  ringmq status                                   # does it run?
  ringmq clients list                             # who is connected?
  ringmq console --shards 2                       # run one in the foreground, on two cores
  ringmq start --config ringmq.conf --set mqtt.max_packet_size=1MB
  ringmq stop                                     # end it: clients are told, wills are published

Exit codes: 0 done, 1 failed or not running, 2 the command line is wrong.
A command finds its broker by the data folder: --data, else RINGMQ_DATA, else /var/lib/ringmq for root and
$XDG_STATE_HOME/ringmq or ~/.local/state/ringmq for others.";

/// RingMQ, an MQTT broker that runs one broker per core.
#[derive(Debug, Parser)]
#[command(name = "ringmq", version, after_help = EXAMPLES, arg_required_else_help = true)]
#[command(subcommand_required = true, max_term_width = 120)]
pub struct Cli {
    /// Folder the broker runs in: admin socket, pid file, log of the background.
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker in the foreground until SIGTERM or SIGINT.
    #[command(after_help = "\
Examples:
  ringmq console
  ringmq console --shards 2 --data /tmp/broker
  ringmq console --set listener.tcp.external=1884 --set mqtt.allow_anonymous=off
  ringmq console --config ringmq.conf --check      # only look whether the settings are right

Signals: SIGTERM and SIGINT end it in order, a second one at once; SIGHUP reads the ACL file again.")]
    Console(RunArgs),
    /// Run the broker in the background; returns when it is ready.
    #[command(after_help = "\
Examples:
  ringmq start
  ringmq start --config ringmq.conf --data /var/lib/ringmq

What it says goes to ringmq.log in the data folder.")]
    Start(RunArgs),
    /// End the running broker; returns when it has ended.
    #[command(after_help = "Example:\n  ringmq stop --data /tmp/broker")]
    Stop,
    /// End the running broker and start it again with the arguments it was started with.
    #[command(after_help = "Example:\n  ringmq restart")]
    Restart,
    /// Tell whether the broker runs, which version, and what is wrong (active alarms).
    #[command(after_help = "Examples:\n  ringmq status\n  ringmq status --json")]
    Status(Output),
    /// Print pong if the broker answers.
    #[command(after_help = "Example:\n  ringmq ping && echo up")]
    Ping,
    /// Tell what the broker is, or its statistics or metrics.
    #[command(after_help = "\
Examples:
  ringmq broker                                   # description, version, uptime, time
  ringmq broker stats                             # how many clients, sessions, ... now and at most
  ringmq broker metrics --json                    # bytes, packets, messages since the start")]
    Broker {
        /// Which part.
        part: Option<BrokerPart>,
        #[command(flatten)]
        output: Output,
    },
    /// List, show and disconnect clients.
    #[command(subcommand, arg_required_else_help = true)]
    Clients(Clients),
    /// List and show sessions.
    #[command(subcommand, arg_required_else_help = true)]
    Sessions(Sessions),
    /// List and show routes: topic filters and the nodes that have a subscriber.
    #[command(subcommand, arg_required_else_help = true)]
    Routes(Routes),
    /// List and show topics that are subscribed to.
    #[command(subcommand, arg_required_else_help = true)]
    Topics(Routes),
    /// List, show, add and delete subscriptions.
    #[command(subcommand, arg_required_else_help = true)]
    Subscriptions(Subscriptions),
    /// Tell of the listeners: who they serve and how connections ended; stop and start them.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "\
Examples:
  ringmq listeners
  ringmq listeners --json
  ringmq listeners stop tcp 1883"
    )]
    Listeners {
        #[command(subcommand)]
        command: Option<Listeners>,
        #[command(flatten)]
        output: Output,
    },
    /// Tell of the process and the machine: load, memory, threads, descriptors, connections.
    #[command(after_help = "\
Examples:
  ringmq vm
  ringmq vm memory --json

What the names mean here: memory/total is the resident memory in bytes, processes and processes_used its heap and stacks,
system the rest, code pages of files, binary pages shared with the kernel; atom, atom_used and ets have no counterpart and are
0. process/limit is the most shards a node can have, process/count the shards it has, process/threads all threads.
io tells of file descriptors; a client connection takes none: ports tells of connections and of the slots for them.")]
    Vm {
        /// Which part; all without it.
        part: Option<VmPart>,
        #[command(flatten)]
        output: Output,
    },
    /// List, show and delete messages that wait to be published.
    #[command(subcommand, arg_required_else_help = true)]
    Delayed(Delayed),
    /// Tell of the retained messages, list their topics, remove them.
    #[command(subcommand, arg_required_else_help = true)]
    Retainer(Retainer),
    /// Tell of the store on disk, back it up, restore it.
    #[command(subcommand, arg_required_else_help = true, visible_alias = "mnesia")]
    Store(Store),
    /// List what is wrong now, and what was.
    #[command(after_help = "Examples:\n  ringmq alarms\n  ringmq alarms --json")]
    Alarms(Output),
    /// List, ban and forgive those who may not connect.
    #[command(subcommand, arg_required_else_help = true)]
    Banned(Banned),
    /// Access rules.
    #[command(subcommand, arg_required_else_help = true)]
    Acl(Acl),
    /// Settings.
    #[command(subcommand, arg_required_else_help = true)]
    Config(Config),
    /// Say what on this machine would keep a broker from holding so many clients, and what to do about it.
    #[command(after_help = "\
Examples:
  ringmq doctor                                   # 100000 clients with the default settings
  ringmq doctor --connections 1000000 --shards 2
  ringmq doctor --config ringmq.conf --json

One line a check: ok, warn or stop; what was found; what is needed; what to do. It changes nothing. The limits are those of
this shell, or of the broker that runs on the data folder: a service may have others.
Exit codes: 0 nothing stops it (there may be warnings), 1 something does, 2 the command line is wrong.")]
    Doctor(DoctorArgs),
    /// Print the version of this program.
    Version,
}

/// Where the settings of a broker come from.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SettingArgs {
    /// File of settings, lines of key = value.
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// A setting; wins over file and environment. Repeatable.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
    /// Number of shards, 1 to 256; one for each CPU the process may use without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: Option<u16>,
}

/// How a broker is run.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub settings: SettingArgs,
    /// Read the settings, say what is wrong with them, and end.
    #[arg(long)]
    pub check: bool,
    /// Become the leader of a session of its own, for `start`.
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// What `doctor` judges.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Clients the broker is to hold.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    pub connections: u64,
    #[command(flatten)]
    pub settings: SettingArgs,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// Print JSON: an object, or one object a line for a list.
    #[arg(long)]
    pub json: bool,
}

/// Parts of `broker`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BrokerPart {
    /// Counts of what exists now, and the most there was.
    Stats,
    /// Counters since the start.
    Metrics,
}

/// Parts of `vm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VmPart {
    /// Load averages of the machine.
    Load,
    /// Memory of the broker in bytes.
    Memory,
    /// Shards and threads.
    Process,
    /// File descriptors.
    Io,
    /// Connections.
    Ports,
    /// All of them.
    All,
}

/// Commands about clients.
#[derive(Debug, Subcommand)]
pub enum Clients {
    /// List the connected clients.
    #[command(after_help = "Examples:\n  ringmq clients list | head\n  ringmq clients list --json")]
    List(Output),
    /// Show a client.
    #[command(after_help = "Example:\n  ringmq clients show sensor-17")]
    Show {
        /// Client identifier.
        client_id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Disconnect a client and end its session.
    #[command(after_help = "Example:\n  ringmq clients kick sensor-17")]
    Kick {
        /// Client identifier.
        client_id: String,
    },
}

/// Commands about listeners.
#[derive(Debug, Subcommand)]
pub enum Listeners {
    /// Start a listener that was stopped.
    #[command(after_help = "Example:\n  ringmq listeners start tcp external")]
    Start(ListenerArgs),
    /// Stop a listener: it accepts no more, and its clients are disconnected.
    #[command(
        after_help = "Examples:\n  ringmq listeners stop tcp 1883\n  ringmq listeners stop tcp external"
    )]
    Stop(ListenerArgs),
    /// Stop a listener and start it again: its clients are disconnected.
    #[command(after_help = "Example:\n  ringmq listeners restart tcp 127.0.0.1:11883")]
    Restart(ListenerArgs),
    /// Read the certificates of all listeners again: connections that come from now on get them.
    #[command(after_help = "Example:\n  ringmq listeners reload")]
    Reload,
}

/// Names a listener.
#[derive(Debug, Args)]
pub struct ListenerArgs {
    /// What it speaks: tcp, ssl, ws or wss.
    #[arg(value_parser = protocol)]
    pub protocol: String,
    /// Its name, its port, or its address and port.
    pub listener: String,
}

/// Kinds of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SessionKind {
    /// Those that outlive their connection.
    Persistent,
    /// Those that end with their connection.
    Transient,
}

/// Commands about sessions.
#[derive(Debug, Subcommand)]
pub enum Sessions {
    /// List sessions.
    #[command(after_help = "Examples:\n  ringmq sessions list\n  ringmq sessions list persistent")]
    List {
        /// Only these.
        kind: Option<SessionKind>,
        #[command(flatten)]
        output: Output,
    },
    /// Show a client's session.
    #[command(after_help = "Example:\n  ringmq sessions show sensor-17 --json")]
    Show {
        /// Client identifier.
        client_id: String,
        #[command(flatten)]
        output: Output,
    },
}

/// Commands about routes and topics.
#[derive(Debug, Subcommand)]
pub enum Routes {
    /// List them.
    #[command(after_help = "Example:\n  ringmq routes list")]
    List(Output),
    /// Show one.
    #[command(after_help = "Example:\n  ringmq routes show 'sensor/+/temperature'")]
    Show {
        /// Topic filter as it was subscribed to.
        topic: String,
        #[command(flatten)]
        output: Output,
    },
}

/// Commands about subscriptions.
#[derive(Debug, Subcommand)]
pub enum Subscriptions {
    /// List all subscriptions.
    #[command(after_help = "Example:\n  ringmq subscriptions list | grep sensor-17")]
    List(Output),
    /// Show a client's subscriptions.
    #[command(after_help = "Example:\n  ringmq subscriptions show sensor-17")]
    Show {
        /// Client identifier.
        client_id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Subscribe a client to a topic filter.
    #[command(after_help = "Example:\n  ringmq subscriptions add sensor-17 'commands/#' 1")]
    Add {
        /// Client identifier.
        client_id: String,
        /// Topic filter.
        topic: String,
        /// Highest QoS of the messages: 0, 1 or 2.
        #[arg(value_parser = qos)]
        qos: u8,
    },
    /// End a client's subscription.
    #[command(after_help = "Example:\n  ringmq subscriptions del sensor-17 'commands/#'")]
    Del {
        /// Client identifier.
        client_id: String,
        /// Topic filter as it was subscribed to.
        topic: String,
    },
}

/// Commands about delayed messages.
#[derive(Debug, Subcommand)]
pub enum Delayed {
    /// List them, for each shard in the order they are due.
    #[command(after_help = "Examples:\n  ringmq delayed list | head\n  ringmq delayed list --json")]
    List(Output),
    /// Show one with its payload.
    #[command(
        after_help = "Example:\n  ringmq delayed show 18bcfe56800-60a24f1c63c8000000b1f400000001"
    )]
    Show {
        /// Its name, as listed.
        id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Delete one: it will not be published.
    #[command(
        after_help = "Example:\n  ringmq delayed delete 18bcfe56800-60a24f1c63c8000000b1f400000001"
    )]
    Delete {
        /// Its name, as listed.
        id: String,
    },
}

/// `store ...`
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Tell of its sizes, rates, latencies and health.
    #[command(after_help = "Example:\n  ringmq store info")]
    Info(Output),
    /// Write all of it, as it is at one moment, into a folder; the broker goes on meanwhile.
    #[command(after_help = "Example:\n  ringmq store backup /var/backups/ringmq/monday")]
    Backup {
        /// The folder; made if it is not there. It must not have a backup.
        folder: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Check a backup and lay it ready: the broker takes it over when it is started the next time, in place of what it has.
    #[command(after_help = "\
Example:
  ringmq store restore /var/backups/ringmq/monday && ringmq restart

The broker may run or not. What it had before stays in the folder store of the data folder until the new one is whole.")]
    Restore {
        /// The folder of the backup.
        folder: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

/// Commands about retained messages.
#[derive(Debug, Subcommand)]
pub enum Retainer {
    /// Tell how many there are and how many there may be.
    #[command(after_help = "Example:\n  ringmq retainer info")]
    Info(Output),
    /// List topics that have one.
    #[command(
        after_help = "Examples:\n  ringmq retainer topics --limit 100\n  ringmq retainer topics --json"
    )]
    Topics {
        /// Most of them.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        #[command(flatten)]
        output: Output,
    },
    /// Remove them, all or those whose topic matches a filter.
    #[command(after_help = "\
Examples:
  ringmq retainer clean 'sensor/+/temperature'
  ringmq retainer clean                           # all but those whose topic begins with $

Subscribers are told nothing.")]
    Clean {
        /// Topic filter.
        #[arg(default_value = "#")]
        filter: String,
        #[command(flatten)]
        output: Output,
    },
}

/// What of a client a ban is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BannedKind {
    /// Its client identifier.
    #[value(name = "clientid")]
    ClientId,
    /// Its user name.
    #[value(name = "username")]
    Username,
    /// The address it comes from.
    #[value(name = "peerhost")]
    PeerHost,
}

/// Commands about bans.
#[derive(Debug, Subcommand)]
pub enum Banned {
    /// List the bans in force, those for flapping too.
    #[command(after_help = "Examples:\n  ringmq banned list\n  ringmq banned list --json")]
    List(Output),
    /// Ban clients by identifier, user name or address, or change a ban.
    #[command(after_help = "\
Examples:
  ringmq banned add clientid sensor-17
  ringmq banned add peerhost 203.0.113.9 --for 1h --reason 'thousands of connections' --by ann

They are refused when they connect (reason 0x8A, return code 5). Who is connected stays: `ringmq clients kick` ends that. Bans are
kept in the data folder.")]
    Add {
        /// What the ban is about.
        kind: BannedKind,
        /// The client identifier, user name or address.
        who: String,
        /// How long, such as 30s, 1h or 7d; for ever without it.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        seconds: Option<u64>,
        /// Why, for people.
        #[arg(long, default_value = "")]
        reason: String,
        /// Who bans; the user of this shell without it.
        #[arg(long)]
        by: Option<String>,
    },
    /// End a ban.
    #[command(after_help = "Example:\n  ringmq banned del clientid sensor-17")]
    Del {
        /// What the ban is about.
        kind: BannedKind,
        /// The client identifier, user name or address.
        who: String,
    },
}

/// Commands about access rules.
#[derive(Debug, Subcommand)]
pub enum Acl {
    /// Read the file of access rules again.
    #[command(after_help = "\
Example:
  ringmq acl reload

If the file cannot be read or a rule is wrong, the old rules stay.")]
    Reload,
}

/// Commands about settings.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Show the settings in force and where each came from.
    #[command(after_help = "\
Examples:
  ringmq config show
  ringmq config show --doc > ringmq.conf           # a file that --config takes")]
    Show {
        /// With what each is for.
        #[arg(long)]
        doc: bool,
        #[command(flatten)]
        output: Output,
    },
}

/// Reads `key=value`; the value may have more `=`.
fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write it as key=value".to_owned()),
    }
}

/// Reads a duration in seconds, at least one.
fn seconds(text: &str) -> Result<u64, String> {
    config::duration_seconds(text)
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| "it should be a time such as 30s, 1h or 7d".to_owned())
}

/// Reads `tcp`, or `mqtt:tcp` as listings have it.
fn protocol(text: &str) -> Result<String, String> {
    let word = text.strip_prefix("mqtt:").unwrap_or(text);
    match word {
        "tcp" | "ssl" | "ws" | "wss" => Ok(word.to_owned()),
        _ => Err("it should be tcp, ssl, ws or wss".to_owned()),
    }
}

fn qos(text: &str) -> Result<u8, String> {
    match text {
        "0" => Ok(0),
        "1" => Ok(1),
        "2" => Ok(2),
        _ => Err("QoS should be 0, 1, 2".to_owned()),
    }
}

impl RunArgs {
    /// The arguments that run a broker the same way from any folder.
    pub fn to_arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let SettingArgs { config, set, shards } = &self.settings;
        if let Some(config) = config {
            let absolute = std::path::absolute(config)
                .map_or_else(|_| config.clone(), |path| path.display().to_string());
            arguments.extend(["--config".to_owned(), absolute]);
        }
        for (key, value) in set {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        if let Some(shards) = shards {
            arguments.extend(["--shards".to_owned(), shards.to_string()]);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_leaf_has_help_with_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no help");
            let leaf = command.get_subcommands().next().is_none();
            let example =
                command.get_after_help().is_some_and(|t| t.to_string().contains("Example"));
            assert!(!leaf || example || command.get_name() == "version", "{path} has no example");
            command.get_subcommands().for_each(|sub| walk(sub, &path));
        }
        walk(&Cli::command(), "");
    }

    #[test]
    fn run_arguments_survive_a_restart() {
        let cli = parse("ringmq start --config /a/b.conf --set node.name=a=b --set x=y --shards 3");
        let Command::Start(run) = cli.unwrap().command else { panic!("start") };
        let again = ["ringmq", "start"].map(str::to_owned).into_iter().chain(run.to_arguments());
        let Command::Start(again) = Cli::try_parse_from(again).unwrap().command else {
            panic!("start")
        };
        assert_eq!(run, again);
        assert_eq!(run.settings.set[0], ("node.name".to_owned(), "a=b".to_owned()));
    }

    #[test]
    fn wrong_lines_are_usage_errors() {
        for line in [
            "ringmq",
            "ringmq clients",
            "ringmq nonsense",
            "ringmq console --shards 0",
            "ringmq console --shards 257",
            "ringmq console --set novalue",
            "ringmq sessions list some",
            "ringmq subscriptions add c t 3",
            "ringmq clients show",
            "ringmq doctor --connections 0",
            "ringmq doctor --connections many",
            "ringmq doctor --check",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        let error = parse("ringmq subscriptions add c t 3").unwrap_err();
        assert!(error.to_string().contains("QoS should be 0, 1, 2"));
    }

    #[test]
    fn the_data_folder_may_stand_anywhere() {
        for line in ["ringmq --data d ping", "ringmq ping --data d", "ringmq clients list --data d"]
        {
            assert_eq!(parse(line).unwrap().data, Some(PathBuf::from("d")), "{line}");
        }
    }
}
