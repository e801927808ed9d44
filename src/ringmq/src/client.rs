//! The other end of the admin socket: sends a request, hands out the rows of the answer as they come.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::time::Duration;

use admin::DataFolder;
use admin::protocol::{AdminRequest, BrokerLine, End, ErrorKind};
use displaydoc::Display;
use thiserror::Error;

/// Time the broker has for each line of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request was not answered in full.
#[derive(Debug, Display, Error)]
pub enum ClientError {
    /// no broker runs on this data folder
    NotRunning,
    /// the connection to the broker failed: {0}
    Connection(io::Error),
    /// {text}
    Refused {
        /// What kind of failure.
        kind: ErrorKind,
        /// What the broker says.
        text: String,
    },
    /// cannot write: {0}
    Output(io::Error),
}

/// Sends a request and calls `on_row` for each row, in order, without its line end.
pub fn ask(
    folder: &DataFolder,
    request: &AdminRequest,
    on_row: impl FnMut(&str) -> io::Result<()>,
) -> Result<(), ClientError> {
    ask_within(folder, request, ANSWER_TIMEOUT, on_row)
}

/// As [`ask`], with a time of its own for each line.
pub fn ask_within(
    folder: &DataFolder,
    request: &AdminRequest,
    line_timeout: Duration,
    mut on_row: impl FnMut(&str) -> io::Result<()>,
) -> Result<(), ClientError> {
    let mut stream = match folder.connect() {
        Ok(stream) => stream,
        Err(error) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning
                }
                _ => ClientError::Connection(error),
            });
        }
    };
    let sent = (|| {
        stream.set_read_timeout(Some(line_timeout))?;
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        stream.write_all(line.as_bytes())?;
        stream.shutdown(Shutdown::Write)
    })();
    sent.map_err(ClientError::Connection)?;
    read_answer(&mut BufReader::new(stream), &mut on_row)
}

/// Who runs on a folder.
pub fn broker(folder: &DataFolder, timeout: Duration) -> Result<BrokerLine, ClientError> {
    let mut broker = None;
    ask_within(folder, &AdminRequest::Broker, timeout, |row| {
        broker = Some(serde_json::from_str(row)?);
        Ok(())
    })?;
    broker.ok_or_else(|| ClientError::Connection(io::ErrorKind::UnexpectedEof.into()))
}

fn read_answer(
    reader: &mut impl BufRead,
    on_row: &mut impl FnMut(&str) -> io::Result<()>,
) -> Result<(), ClientError> {
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).map_err(ClientError::Connection)? == 0 {
            // The broker ended before it had said everything.
            return Err(ClientError::Connection(io::ErrorKind::UnexpectedEof.into()));
        }
        let text = line.trim_end_matches('\n');
        match end(text) {
            None => on_row(text).map_err(ClientError::Output)?,
            Some(End::Done { .. }) => return Ok(()),
            Some(End::Error { error, kind }) => {
                return Err(ClientError::Refused { kind, text: error });
            }
        }
    }
}

/// The last line of an answer; rows never begin like it.
fn end(line: &str) -> Option<End> {
    let last = line.starts_with("{\"done\":") || line.starts_with("{\"error\":");
    last.then(|| serde_json::from_str(line).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> (Vec<String>, Result<(), ClientError>) {
        let mut rows = Vec::new();
        let outcome = read_answer(&mut text.as_bytes(), &mut |row| {
            rows.push(row.to_owned());
            Ok(())
        });
        (rows, outcome)
    }

    #[test]
    fn rows_come_before_the_end() {
        let (rows, outcome) = answer("{\"a\":1}\n{\"b\":2}\n{\"done\":true}\n");
        assert_eq!(rows, ["{\"a\":1}", "{\"b\":2}"]);
        assert!(outcome.is_ok());
    }

    #[test]
    fn an_error_ends_an_answer() {
        let (rows, outcome) = answer("{\"error\":\"Not Found.\",\"kind\":\"not_found\"}\n");
        assert!(rows.is_empty());
        let Err(ClientError::Refused { kind: ErrorKind::NotFound, text }) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(text, "Not Found.");
    }

    #[test]
    fn a_cut_answer_is_no_answer() {
        let (rows, outcome) = answer("{\"a\":1}\n");
        assert_eq!(rows.len(), 1);
        assert!(matches!(outcome, Err(ClientError::Connection(_))));
    }

    #[test]
    fn what_the_server_writes_is_understood() {
        for whole in [
            End::Done { done: true },
            End::Error { error: "x".to_owned(), kind: ErrorKind::Failed },
        ] {
            assert_eq!(end(&serde_json::to_string(&whole).unwrap()), Some(whole));
        }
        assert_eq!(end("{\"client_id\":\"{\\\"done\\\":\"}"), None);
    }
}
