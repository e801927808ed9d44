//! The admin socket's server: one request a connection, rows sent as fast as the client reads them.
//!
//! What waits for a shard runs on tokio's blocking threads, a page at a time: while a client does not read, nothing is asked
//! of a shard and nothing piles up here.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mqtt::{QoS, ReasonCode};
use node::{
    Action, ActionError, ActionReply, Ban, BannedWho, DelayedId, ListenerKind, ListenerName,
    Listing, Node, Pages, Rows,
};
use serde::Serialize;
use serde_json::{Map, Value};
use shard::command::SessionKind;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task;
use tokio::time::timeout;

use crate::Event;
use crate::protocol::{
    AdminRequest, AlarmLine, BanLine, BrokerLine, ClientLine, DelayedLine, End, ErrorKind,
    ListenerLine, REQUEST_LEN_MAX, RemovedLine, RetainedLine, RetainerLine, RouteLine, SessionLine,
    SettingLine, SubscriptionLine,
};
use crate::store_line::{BackupLine, StoreLine};
use crate::text::{datetime, uptime};
use crate::vm;

/// Requests worked on at a time; more wait.
const REQUESTS_MAX: usize = 64;

/// Time a client has to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time a client may take to read a page, such as one shown in a pager.
const READER_TIMEOUT: Duration = Duration::from_secs(600);

/// Pause after a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the socket until the task is dropped.
pub(crate) async fn serve(
    listener: UnixListener,
    node: Arc<Node>,
    events: mpsc::UnboundedSender<Event>,
) {
    let turns = Arc::new(Semaphore::new(REQUESTS_MAX));
    loop {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (node, events) = (Arc::clone(&node), events.clone());
                task::spawn(async move {
                    // A client that left early is its own affair.
                    let _ = connection(stream, node, events).await;
                    drop(turn);
                });
            }
            Err(error) => {
                log::warn!("cannot accept on the admin socket: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Why a request had no full answer.
struct Failure {
    kind: ErrorKind,
    text: String,
}

impl Failure {
    fn new(kind: ErrorKind, text: impl Into<String>) -> Failure {
        Failure { kind, text: text.into() }
    }
}

impl From<ActionError> for Failure {
    fn from(error: ActionError) -> Failure {
        Failure::new(ErrorKind::Failed, error.to_string())
    }
}

async fn connection(
    stream: UnixStream,
    node: Arc<Node>,
    events: mpsc::UnboundedSender<Event>,
) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader).take(REQUEST_LEN_MAX as u64);
    timeout(REQUEST_TIMEOUT, reader.read_until(b'\n', &mut line)).await??;
    let mut answer = Answer { writer, buffer: Vec::new() };
    let outcome = match serde_json::from_slice::<AdminRequest>(&line) {
        Ok(request) => {
            let stop = request == AdminRequest::Stop;
            let outcome = respond(request, &node, &mut answer).await?;
            if stop {
                answer.end(&End::Done { done: true }).await?;
                let _ = events.send(Event::Stop);
                return Ok(());
            }
            outcome
        }
        Err(error) => Err(Failure::new(ErrorKind::BadRequest, error.to_string())),
    };
    let end = match outcome {
        Ok(()) => End::Done { done: true },
        Err(Failure { kind, text }) => End::Error { error: text, kind },
    };
    answer.end(&end).await
}

/// The writing side: rows gather in a buffer that goes out once a page.
struct Answer {
    writer: OwnedWriteHalf,
    buffer: Vec<u8>,
}

impl Answer {
    fn row(&mut self, row: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.buffer, row)?;
        self.buffer.push(b'\n');
        Ok(())
    }

    fn rows<R, L: From<R> + Serialize>(&mut self, rows: Vec<R>) -> io::Result<()> {
        rows.into_iter().try_for_each(|row| self.row(&L::from(row)))
    }

    async fn flush(&mut self) -> io::Result<()> {
        timeout(READER_TIMEOUT, self.writer.write_all(&self.buffer)).await??;
        self.buffer.clear();
        Ok(())
    }

    async fn end(&mut self, end: &End) -> io::Result<()> {
        self.row(end)?;
        self.flush().await?;
        self.writer.shutdown().await
    }
}

/// Runs on a blocking thread: the shards' answers are waited for.
async fn perform(node: &Arc<Node>, action: Action) -> Result<ActionReply, Failure> {
    let node = Arc::clone(node);
    let reply = task::spawn_blocking(move || node.perform(action)).await;
    match reply.map_err(|error| Failure::new(ErrorKind::Failed, error.to_string()))?? {
        ActionReply::NotFound => Err(Failure::new(ErrorKind::NotFound, "Not Found.")),
        ActionReply::Refused(reason) => Err(Failure::new(ErrorKind::Refused, refusal(reason))),
        reply => Ok(reply),
    }
}

fn refusal(reason: ReasonCode) -> String {
    format!("refused with reason code {:#04x}", reason as u8)
}

/// What a request asks of the node; none: it is answered without the node.
fn action(request: &AdminRequest) -> Result<Option<Action>, Failure> {
    let request = request.clone();
    Ok(Some(match request {
        AdminRequest::Ping | AdminRequest::Stop => return Ok(None),
        AdminRequest::Vm { .. } => Action::Capacity,
        AdminRequest::Broker => Action::Broker,
        AdminRequest::Stats => Action::Stats,
        AdminRequest::Metrics => Action::Metrics,
        AdminRequest::Listeners => Action::Listeners,
        AdminRequest::ListenersStart { protocol, name } => {
            Action::ListenerStart(listener_name(&protocol, name)?)
        }
        AdminRequest::ListenersStop { protocol, name } => {
            Action::ListenerStop(listener_name(&protocol, name)?)
        }
        AdminRequest::ListenersRestart { protocol, name } => {
            Action::ListenerRestart(listener_name(&protocol, name)?)
        }
        AdminRequest::Alarms => Action::Alarms,
        AdminRequest::BannedList => Action::Banned,
        AdminRequest::BannedAdd { kind, who, reason, by, seconds } => {
            let at_unix_s =
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let until_unix_s = seconds.map(|seconds| at_unix_s.saturating_add(seconds));
            let who = banned_who(&kind, &who)?;
            Action::BannedAdd(Ban { who, reason, by, at_unix_s, until_unix_s })
        }
        AdminRequest::BannedDel { kind, who } => Action::BannedDel(banned_who(&kind, &who)?),
        AdminRequest::ConfigShow => Action::Settings,
        AdminRequest::AclReload => Action::AclReload,
        AdminRequest::ListenersReload => Action::CertificatesReload,
        AdminRequest::ClientsList => Action::List(Listing::Clients),
        AdminRequest::ClientsShow { client_id } => Action::ClientShow { client_id },
        AdminRequest::ClientsKick { client_id } => Action::ClientKick { client_id },
        AdminRequest::SessionsList { persistent } => {
            Action::List(Listing::Sessions(match persistent {
                None => SessionKind::Any,
                Some(true) => SessionKind::Persistent,
                Some(false) => SessionKind::Transient,
            }))
        }
        AdminRequest::SessionsShow { client_id } => Action::SessionShow { client_id },
        AdminRequest::RoutesList => Action::List(Listing::Routes),
        AdminRequest::RoutesShow { topic } => Action::RouteShow { filter: topic },
        AdminRequest::SubscriptionsList => Action::List(Listing::Subscriptions),
        AdminRequest::SubscriptionsShow { client_id } => {
            Action::List(Listing::ClientSubscriptions { client_id })
        }
        AdminRequest::SubscriptionsAdd { client_id, topic, qos } => {
            let qos = QoS::from_bits(qos).ok_or_else(|| {
                Failure::new(ErrorKind::BadRequest, "QoS should be 0, 1, 2".to_owned())
            })?;
            Action::SubscriptionAdd { client_id, filter: topic, qos }
        }
        AdminRequest::SubscriptionsDel { client_id, topic } => {
            Action::SubscriptionDel { client_id, filter: topic }
        }
        AdminRequest::DelayedList => Action::List(Listing::Delayed),
        AdminRequest::DelayedShow { id } => Action::DelayedShow(delayed_id(&id)?),
        AdminRequest::DelayedDelete { id } => Action::DelayedDelete(delayed_id(&id)?),
        AdminRequest::StoreInfo => Action::StoreInfo,
        AdminRequest::StoreBackup { folder } => Action::StoreBackup { folder: folder.into() },
        AdminRequest::RetainerInfo => Action::RetainerInfo,
        AdminRequest::RetainerTopics { limit } => Action::List(Listing::Retained { limit }),
        AdminRequest::RetainerClean { filter } => Action::RetainerClean { filter },
    }))
}

fn delayed_id(text: &str) -> Result<DelayedId, Failure> {
    text.parse().map_err(|error: node::DelayedIdError| {
        Failure::new(ErrorKind::BadRequest, format!("{text}: {error}"))
    })
}

fn banned_who(kind: &str, who: &str) -> Result<BannedWho, Failure> {
    if !matches!(kind, "clientid" | "username" | "peerhost") {
        let text = "what is banned should be clientid, username or peerhost";
        return Err(Failure::new(ErrorKind::BadRequest, text));
    }
    node::banned_who(kind, who)
        .map_err(|error| Failure::new(ErrorKind::BadRequest, error.to_string()))
}

fn listener_name(protocol: &str, name: String) -> Result<ListenerName, Failure> {
    let kind = ListenerKind::from_word(protocol).ok_or_else(|| {
        Failure::new(ErrorKind::BadRequest, "the protocol should be tcp, ssl, ws or wss")
    })?;
    Ok(ListenerName { kind, name })
}

async fn respond(
    request: AdminRequest,
    node: &Arc<Node>,
    answer: &mut Answer,
) -> io::Result<Result<(), Failure>> {
    let reply = match action(&request) {
        Ok(Some(action)) => perform(node, action).await,
        Ok(None) => Ok(ActionReply::Done),
        Err(failure) => Err(failure),
    };
    let reply = match reply {
        Ok(reply) => reply,
        Err(failure) => return Ok(Err(name_session(failure, &request))),
    };
    match reply {
        ActionReply::Pages(pages) => return list(pages, &request, answer).await,
        ActionReply::Capacity(capacity) => {
            if let AdminRequest::Vm { part } = request {
                answer.row(&vm::read(part, &capacity))?;
            }
        }
        ActionReply::Broker(info) => answer.row(&BrokerLine {
            node: info.node,
            sysdescr: info.sysdescr.to_owned(),
            version: info.version.to_owned(),
            uptime_s: info.uptime_s,
            uptime: uptime(info.uptime_s),
            datetime: datetime(info.unix_s),
            pid: std::process::id(),
            shards: info.shards,
        })?,
        ActionReply::Numbers(numbers) => {
            let object: Map<String, Value> = numbers
                .into_iter()
                .map(|(name, number)| (name.to_owned(), number.into()))
                .collect();
            answer.row(&object)?;
        }
        ActionReply::Listeners(listeners) => answer.rows::<_, ListenerLine>(listeners)?,
        ActionReply::Alarms(alarms) => {
            answer.rows::<_, AlarmLine>(alarms.active)?;
            answer.rows::<_, AlarmLine>(alarms.history)?;
        }
        ActionReply::Bans(bans) => answer.rows::<_, BanLine>(bans)?,
        ActionReply::Settings(settings) => answer.rows::<_, SettingLine>(settings)?,
        ActionReply::Client(row) => answer.row(&ClientLine::from(*row))?,
        ActionReply::Session(row) => answer.row(&SessionLine::from(*row))?,
        ActionReply::Route(route) => answer.row(&RouteLine::from(route))?,
        ActionReply::Delayed(row) => answer.row(&DelayedLine::from(*row))?,
        ActionReply::Retainer(info) => answer.row(&RetainerLine::from(info))?,
        ActionReply::Store(info) => answer.row(&StoreLine::from(*info))?,
        ActionReply::StoreBackup(backup) => answer.row(&BackupLine::from(backup))?,
        ActionReply::Count(removed) => answer.row(&RemovedLine { removed })?,
        ActionReply::Done | ActionReply::NotFound | ActionReply::Refused(_) => {}
    }
    Ok(Ok(()))
}

/// `subscriptions add` and `del` say which thing was not found (SEED-CLI-24).
fn name_session(failure: Failure, request: &AdminRequest) -> Failure {
    let of_session = matches!(
        request,
        AdminRequest::SubscriptionsAdd { .. } | AdminRequest::SubscriptionsDel { .. }
    );
    if failure.kind == ErrorKind::NotFound && of_session {
        return Failure::new(ErrorKind::NotFound, "Error: Session not found!");
    }
    failure
}

/// Sends page after page; the next one is asked for when the one before has been read.
async fn list(
    mut pages: Pages,
    request: &AdminRequest,
    answer: &mut Answer,
) -> io::Result<Result<(), Failure>> {
    let mut any = false;
    loop {
        let step = task::spawn_blocking(move || {
            let page = pages.next_page();
            (pages, page)
        });
        let page = match step.await {
            Ok((rest, page)) => {
                pages = rest;
                page
            }
            Err(error) => return Ok(Err(Failure::new(ErrorKind::Failed, error.to_string()))),
        };
        match page {
            Ok(Some(rows)) => {
                any = true;
                write_rows(rows, answer)?;
                answer.flush().await?;
            }
            Ok(None) if !any && matches!(request, AdminRequest::SubscriptionsShow { .. }) => {
                return Ok(Err(Failure::new(ErrorKind::NotFound, "Not Found.")));
            }
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(Failure::new(ErrorKind::Failed, error.to_string()))),
        }
    }
}

fn write_rows(rows: Rows, answer: &mut Answer) -> io::Result<()> {
    match rows {
        Rows::Clients(rows) => answer.rows::<_, ClientLine>(rows),
        Rows::Sessions(rows) => answer.rows::<_, SessionLine>(rows),
        Rows::Routes(rows) => answer.rows::<_, RouteLine>(rows),
        Rows::Subscriptions(rows) => answer.rows::<_, SubscriptionLine>(rows),
        Rows::Delayed(rows) => answer.rows::<_, DelayedLine>(rows),
        Rows::Retained(rows) => answer.rows::<_, RetainedLine>(rows),
    }
}
