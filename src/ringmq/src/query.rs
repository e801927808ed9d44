//! Commands that ask the running broker: the request of each, and its answer on standard output.

use std::io::{self, BufWriter, StdoutLock, Write};

use admin::DataFolder;
use admin::protocol::{AdminRequest, ErrorKind, SubscriptionLine, VmPart as AdminVmPart};
use admin::store_line::BackupLine;

use crate::cli::{
    Acl, Banned, BannedKind, BrokerPart, Clients, Config, Delayed, ListenerArgs, Listeners, Output,
    Retainer, Routes, SessionKind, Sessions, Store, Subscriptions, VmPart,
};
use crate::client::{ClientError, ask};
use crate::show;

/// How the rows of an answer become text.
#[derive(Clone, Copy)]
enum Form {
    Client,
    Session,
    Route,
    Topic,
    Subscription,
    Listener,
    Setting { doc: bool },
    Alarm,
    Ban,
    Delayed,
    Retainer,
    Retained,
    Removed,
    Store,
    Backup,
    Broker,
    Stats,
    Metrics,
    Vm,
}

/// Standard output behind a buffer: a listing may have a million lines.
type Out = BufWriter<StdoutLock<'static>>;

fn out() -> Out {
    BufWriter::with_capacity(64 * 1024, io::stdout().lock())
}

/// `clients ...`
pub fn clients(folder: &DataFolder, command: Clients) -> Result<(), ClientError> {
    match command {
        Clients::List(output) => rows(folder, &AdminRequest::ClientsList, Form::Client, output),
        Clients::Show { client_id, output } => {
            rows(folder, &AdminRequest::ClientsShow { client_id }, Form::Client, output)
        }
        Clients::Kick { client_id } => done(folder, &AdminRequest::ClientsKick { client_id }),
    }
}

/// `sessions ...`
pub fn sessions(folder: &DataFolder, command: Sessions) -> Result<(), ClientError> {
    match command {
        Sessions::List { kind, output } => {
            let persistent = kind.map(|kind| kind == SessionKind::Persistent);
            rows(folder, &AdminRequest::SessionsList { persistent }, Form::Session, output)
        }
        Sessions::Show { client_id, output } => {
            rows(folder, &AdminRequest::SessionsShow { client_id }, Form::Session, output)
        }
    }
}

/// `routes ...`
pub fn routes(folder: &DataFolder, command: Routes) -> Result<(), ClientError> {
    match command {
        Routes::List(output) => rows(folder, &AdminRequest::RoutesList, Form::Route, output),
        Routes::Show { topic, output } => {
            rows(folder, &AdminRequest::RoutesShow { topic }, Form::Route, output)
        }
    }
}

/// `topics ...`
pub fn topics(folder: &DataFolder, command: Routes) -> Result<(), ClientError> {
    match command {
        Routes::List(output) => rows(folder, &AdminRequest::RoutesList, Form::Topic, output),
        Routes::Show { topic, output } => {
            rows(folder, &AdminRequest::RoutesShow { topic }, Form::Route, output)
        }
    }
}

/// `subscriptions ...`
pub fn subscriptions(folder: &DataFolder, command: Subscriptions) -> Result<(), ClientError> {
    match command {
        Subscriptions::List(output) => {
            rows(folder, &AdminRequest::SubscriptionsList, Form::Subscription, output)
        }
        Subscriptions::Show { client_id, output: Output { json: true } } => {
            let request = AdminRequest::SubscriptionsShow { client_id };
            rows(folder, &request, Form::Subscription, Output { json: true })
        }
        Subscriptions::Show { client_id, .. } => subscriptions_of(folder, &client_id),
        Subscriptions::Add { client_id, topic, qos } => {
            done(folder, &AdminRequest::SubscriptionsAdd { client_id, topic, qos })
        }
        Subscriptions::Del { client_id, topic } => {
            done(folder, &AdminRequest::SubscriptionsDel { client_id, topic })
        }
    }
}

/// `listeners`
pub fn listeners(folder: &DataFolder, output: Output) -> Result<(), ClientError> {
    rows(folder, &AdminRequest::Listeners, Form::Listener, output)
}

/// `listeners start|stop|restart|reload` (SEED-CLI-46, SEED-CLI-47)
pub fn listener(folder: &DataFolder, command: Listeners) -> Result<(), ClientError> {
    let (verb, ListenerArgs { protocol, listener }) = match command {
        Listeners::Start(listener) => ("start", listener),
        Listeners::Stop(listener) => ("stop", listener),
        Listeners::Restart(listener) => ("restart", listener),
        Listeners::Reload => return done(folder, &AdminRequest::ListenersReload),
    };
    let which = format!("mqtt:{protocol} listener on {listener}");
    let name = listener;
    let request = match verb {
        "start" => AdminRequest::ListenersStart { protocol, name },
        "stop" => AdminRequest::ListenersStop { protocol, name },
        _ => AdminRequest::ListenersRestart { protocol, name },
    };
    match ask(folder, &request, |_| Ok(())) {
        Ok(()) => {
            let first = verb[..1].to_ascii_uppercase();
            let text = format!("{first}{} {which} successfully.", &verb[1..]);
            writeln!(io::stdout(), "{text}").map_err(ClientError::Output)
        }
        Err(ClientError::Refused { kind, text }) => {
            let text = format!("Failed to {verb} {which}, error: {text}");
            Err(ClientError::Refused { kind, text })
        }
        Err(error) => Err(error),
    }
}

/// `broker [stats|metrics]`
pub fn broker(
    folder: &DataFolder,
    part: Option<BrokerPart>,
    output: Output,
) -> Result<(), ClientError> {
    let (request, form) = match part {
        None => (AdminRequest::Broker, Form::Broker),
        Some(BrokerPart::Stats) => (AdminRequest::Stats, Form::Stats),
        Some(BrokerPart::Metrics) => (AdminRequest::Metrics, Form::Metrics),
    };
    rows(folder, &request, form, output)
}

/// `vm [part]`
pub fn vm(folder: &DataFolder, part: Option<VmPart>, output: Output) -> Result<(), ClientError> {
    let part = match part {
        None | Some(VmPart::All) => AdminVmPart::All,
        Some(VmPart::Load) => AdminVmPart::Load,
        Some(VmPart::Memory) => AdminVmPart::Memory,
        Some(VmPart::Process) => AdminVmPart::Process,
        Some(VmPart::Io) => AdminVmPart::Io,
        Some(VmPart::Ports) => AdminVmPart::Ports,
    };
    rows(folder, &AdminRequest::Vm { part }, Form::Vm, output)
}

/// `alarms` (SEED-OBS-03)
pub fn alarms(folder: &DataFolder, output: Output) -> Result<(), ClientError> {
    rows(folder, &AdminRequest::Alarms, Form::Alarm, output)
}

/// `banned ...` (SEED-AUTH-19)
pub fn banned(folder: &DataFolder, command: Banned) -> Result<(), ClientError> {
    let name = |kind| {
        match kind {
            BannedKind::ClientId => "clientid",
            BannedKind::Username => "username",
            BannedKind::PeerHost => "peerhost",
        }
        .to_owned()
    };
    match command {
        Banned::List(output) => rows(folder, &AdminRequest::BannedList, Form::Ban, output),
        Banned::Add { kind, who, seconds, reason, by } => {
            let by = by.or_else(|| std::env::var("USER").ok()).unwrap_or_default();
            let kind = name(kind);
            done(folder, &AdminRequest::BannedAdd { kind, who, reason, by, seconds })
        }
        Banned::Del { kind, who } => {
            done(folder, &AdminRequest::BannedDel { kind: name(kind), who })
        }
    }
}

/// `delayed ...` (SEED-PUB-16)
pub fn delayed(folder: &DataFolder, command: Delayed) -> Result<(), ClientError> {
    match command {
        Delayed::List(output) => rows(folder, &AdminRequest::DelayedList, Form::Delayed, output),
        Delayed::Show { id, output } => {
            rows(folder, &AdminRequest::DelayedShow { id }, Form::Delayed, output)
        }
        Delayed::Delete { id } => done(folder, &AdminRequest::DelayedDelete { id }),
    }
}

/// `store ...` (SEED-CLI-48)
pub fn store(folder: &DataFolder, command: Store) -> Result<(), ClientError> {
    match command {
        Store::Info(output) => rows(folder, &AdminRequest::StoreInfo, Form::Store, output),
        Store::Backup { folder: to, output } => {
            let to = std::path::absolute(&to).map_err(ClientError::Output)?;
            let request = AdminRequest::StoreBackup { folder: to.to_string_lossy().into_owned() };
            rows(folder, &request, Form::Backup, output)
        }
        Store::Restore { folder: from, output } => {
            let staged = node::restore_store(folder.path(), &from).map_err(|error| {
                ClientError::Refused { kind: ErrorKind::Failed, text: error.to_string() }
            })?;
            let line = BackupLine::from(staged);
            let mut out = out();
            let text = if output.json {
                serde_json::to_string(&line).map_err(io::Error::from)
            } else {
                let store = folder.path().join("store");
                let now = if store.join("data").exists() {
                    let replaced = store.join("replaced");
                    format!("; what the store has then is moved to {}", replaced.display())
                } else {
                    String::new()
                };
                Ok(format!(
                    "{}; it is taken over when the broker is started the next time{now}",
                    show::backup(line)
                ))
            };
            text.and_then(|text| writeln!(out, "{text}").and_then(|()| out.flush()))
                .map_err(ClientError::Output)
        }
    }
}

/// `retainer ...` (SEED-CLI-58)
pub fn retainer(folder: &DataFolder, command: Retainer) -> Result<(), ClientError> {
    match command {
        Retainer::Info(output) => rows(folder, &AdminRequest::RetainerInfo, Form::Retainer, output),
        Retainer::Topics { limit, output } => {
            rows(folder, &AdminRequest::RetainerTopics { limit }, Form::Retained, output)
        }
        Retainer::Clean { filter, output } => {
            rows(folder, &AdminRequest::RetainerClean { filter }, Form::Removed, output)
        }
    }
}

/// `acl reload`
pub fn acl(folder: &DataFolder, command: &Acl) -> Result<(), ClientError> {
    let Acl::Reload = command;
    done(folder, &AdminRequest::AclReload)
}

/// `config show`
pub fn config(folder: &DataFolder, command: &Config) -> Result<(), ClientError> {
    let Config::Show { doc, output } = *command;
    rows(folder, &AdminRequest::ConfigShow, Form::Setting { doc }, output)
}

/// Prints the rows of an answer, as text or as they are.
fn rows(
    folder: &DataFolder,
    request: &AdminRequest,
    form: Form,
    output: Output,
) -> Result<(), ClientError> {
    let mut out = out();
    ask(folder, request, |row| {
        if output.json { writeln!(out, "{row}") } else { writeln!(out, "{}", text(form, row)?) }
    })?;
    out.flush().map_err(ClientError::Output)
}

/// Asks for something to be done and says `ok`.
fn done(folder: &DataFolder, request: &AdminRequest) -> Result<(), ClientError> {
    ask(folder, request, |_| Ok(()))?;
    writeln!(io::stdout(), "ok").map_err(ClientError::Output)
}

/// One line for all subscriptions of a client, written as they come.
fn subscriptions_of(folder: &DataFolder, client_id: &str) -> Result<(), ClientError> {
    let mut out = out();
    let mut before = format!("{}: [", show::safe(client_id));
    let request = AdminRequest::SubscriptionsShow { client_id: client_id.to_owned() };
    ask(folder, &request, |row| {
        let item = show::subscription_item(&show::parse::<SubscriptionLine>(row)?);
        write!(out, "{before}{item}")?;
        before.clear();
        before.push(',');
        Ok(())
    })?;
    // No row was written: the session has no subscription.
    let opening = if before == "," { "" } else { before.as_str() };
    writeln!(out, "{opening}]").and_then(|()| out.flush()).map_err(ClientError::Output)
}

fn text(form: Form, row: &str) -> io::Result<String> {
    Ok(match form {
        Form::Client => show::client(&show::parse(row)?),
        Form::Session => show::session(&show::parse(row)?),
        Form::Route => show::route(&show::parse(row)?),
        Form::Topic => show::topic(&show::parse(row)?),
        Form::Subscription => show::subscription(&show::parse(row)?),
        Form::Listener => show::listener(&show::parse(row)?),
        Form::Setting { doc } => show::setting(&show::parse(row)?, doc),
        Form::Alarm => show::alarm(&show::parse(row)?),
        Form::Ban => show::ban(&show::parse(row)?),
        Form::Delayed => show::delayed(&show::parse(row)?),
        Form::Retainer => show::retainer(&show::parse(row)?),
        Form::Retained => show::retained(&show::parse(row)?),
        Form::Removed => show::removed(show::parse(row)?),
        Form::Store => show::store(&show::parse(row)?),
        Form::Backup => show::backup(show::parse(row)?),
        Form::Broker => show::broker(&show::parse(row)?),
        Form::Stats => show::numbers(&show::parse(row)?, 20),
        Form::Metrics => show::numbers(&show::parse(row)?, 24),
        Form::Vm => show::vm(&show::parse(row)?),
    })
}
