//! The client's layers against the server's, through memory.
#![allow(missing_docs, reason = "tests have no readers of documentation")]

mod common;

use common::{Site, load};
use filter::{
    ClientFilter, ClientFilterSettings, CloseWhy, Filter, FilterError, FilterSettings, TlsClient,
    TlsClientOptions, WebSocketSettings, WebSocketTarget,
};
use ringmq_filter as filter;
use std::sync::Arc;

fn options() -> TlsClientOptions {
    TlsClientOptions {
        host: "localhost".to_owned(),
        ca_file: None,
        cert_file: None,
        key_file: None,
        versions: Vec::new(),
        ciphers: Vec::new(),
        resumes: false,
    }
}

fn tls(options: &TlsClientOptions) -> Option<TlsClient> {
    Some(TlsClient::load(options).unwrap().0)
}

fn websocket(path: &str) -> Option<WebSocketTarget> {
    Some(WebSocketTarget { host: "localhost:8083".to_owned(), path: path.to_owned() })
}

/// Both ends; what one says reaches the other in pieces.
struct Pair {
    client: ClientFilter,
    server: Box<Filter>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    /// MQTT's bytes that came out at each end.
    heard: [Vec<u8>; 2],
    step: usize,
}

impl Pair {
    fn new(
        client: &ClientFilterSettings,
        server: &Arc<FilterSettings>,
        step: usize,
    ) -> Result<Pair, FilterError> {
        let mut to_server = Vec::new();
        let client = ClientFilter::new(client, 7, &mut to_server)?;
        let server = Filter::new(server);
        let (to_client, heard) = (Vec::new(), [Vec::new(), Vec::new()]);
        let mut pair = Pair { client, server, to_server, to_client, heard, step };
        pair.settle()?;
        Ok(pair)
    }

    /// Until nobody has anything to say.
    fn settle(&mut self) -> Result<(), FilterError> {
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            for piece in std::mem::take(&mut self.to_server).chunks_mut(self.step) {
                self.server.received(piece, &mut self.heard[1], &mut self.to_client)?;
            }
            for piece in std::mem::take(&mut self.to_client).chunks_mut(self.step) {
                self.client.received(piece, &mut self.heard[0], &mut self.to_server)?;
            }
        }
        Ok(())
    }

    fn exchange(&mut self, bytes: &[u8]) {
        self.heard = [Vec::new(), Vec::new()];
        self.client.send(bytes, &mut self.to_server).unwrap();
        self.server.send(std::iter::once(bytes), &mut self.to_client).unwrap();
        self.settle().unwrap();
        assert_eq!(self.heard[0], bytes, "from the server");
        assert_eq!(self.heard[1], bytes, "from the client");
    }
}

#[test]
fn bytes_go_both_ways_through_all_layers_in_any_pieces() {
    let site = Site::new();
    for version in [None, Some("tlsv1.2"), Some("tlsv1.3")] {
        for has_websocket in [false, true] {
            let versions = version.map(str::to_owned).into_iter().collect();
            let client = ClientFilterSettings {
                tls: version.and_then(|_| tls(&TlsClientOptions { versions, ..options() })),
                websocket: if has_websocket { websocket("/mqtt") } else { None },
            };
            let server = Arc::new(FilterSettings {
                tls: version.map(|_| load(&site.options).0),
                websocket: has_websocket.then(WebSocketSettings::default),
                ..FilterSettings::default()
            });
            for step in [1, 7, 4096, usize::MAX] {
                let mut pair = Pair::new(&client, &server, step).unwrap();
                assert!(pair.client.is_open(), "{version:?} {has_websocket} {step}");
                for len in [1, 125, 126, 65_535, 65_536, 300_000] {
                    pair.exchange(&vec![u8::try_from(len % 251).unwrap(); len]);
                }
                assert!(!pair.client.is_ended());
                pair.client.close(&mut pair.to_server);
                pair.settle().unwrap();
                assert_eq!(pair.server.is_ended(), version.is_some() || has_websocket);
            }
        }
    }
}

#[test]
fn the_servers_goodbye_ends_it() {
    let site = Site::new();
    let tls_server = FilterSettings { tls: Some(load(&site.options).0), ..Default::default() };
    let tls_client = ClientFilterSettings { tls: tls(&options()), websocket: None };
    let ws_server =
        FilterSettings { websocket: Some(WebSocketSettings::default()), ..Default::default() };
    let ws_client = ClientFilterSettings { tls: None, websocket: websocket("/mqtt") };
    for (client, server) in [(tls_client, tls_server), (ws_client, ws_server)] {
        let mut pair = Pair::new(&client, &Arc::new(server), 5).unwrap();
        pair.server.close(CloseWhy::Normal, &mut pair.to_client);
        pair.settle().unwrap();
        assert!(pair.client.is_ended());
    }
}

#[test]
fn a_ticket_shortens_the_next_handshake_if_wanted() {
    let site = Site::new();
    let server =
        Arc::new(FilterSettings { tls: Some(load(&site.options).0), ..Default::default() });
    for version in ["tlsv1.2", "tlsv1.3"] {
        for resumes in [false, true] {
            let versions = vec![version.to_owned()];
            let tls = tls(&TlsClientOptions { versions, resumes, ..options() });
            let client = ClientFilterSettings { tls, websocket: None };
            for round in 0..3 {
                let pair = Pair::new(&client, &server, 4096).unwrap();
                assert_eq!(pair.client.is_resumed(), resumes && round > 0, "{version} {round}");
            }
        }
    }
}

#[test]
fn a_clients_certificate_is_shown() {
    let site = Site::new();
    let pem = site.authority.client("device-9", 9);
    let with = TlsClientOptions {
        ca_file: Some(site.folder.path("ca.pem")),
        cert_file: Some(site.folder.write("client.pem", &pem.cert)),
        key_file: Some(site.folder.write("client.key", &pem.key)),
        ..options()
    };
    let server = FilterSettings { tls: Some(load(&site.verifying()).0), ..Default::default() };
    let server = Arc::new(server);
    let client = ClientFilterSettings { tls: tls(&with), websocket: None };
    let pair = Pair::new(&client, &server, 4096).unwrap();
    assert!(pair.server.client_certificate().is_some());
    let without = ClientFilterSettings { tls: tls(&options()), websocket: None };
    let error = Pair::new(&without, &server, 4096).map(|_| ()).unwrap_err();
    assert_eq!(error.reason(), "tls_no_client_certificate");
}

#[test]
fn what_is_no_websocket_is_named() {
    let server =
        FilterSettings { websocket: Some(WebSocketSettings::default()), ..Default::default() };
    let elsewhere = ClientFilterSettings { tls: None, websocket: websocket("/chat") };
    let (mut wire, mut answer) = (Vec::new(), Vec::new());
    let mut client = ClientFilter::new(&elsewhere, 1, &mut wire).unwrap();
    let mut filter = Filter::new(&Arc::new(server));
    filter.received(&mut wire, &mut Vec::new(), &mut answer).unwrap_err();
    let error = client.received(&mut answer, &mut Vec::new(), &mut Vec::new()).unwrap_err();
    assert_eq!(error.reason(), "ws_answer");
    assert!(error.to_string().contains("404 Not Found"), "{error}");
    for (answer, text) in [
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "no WebSocket"),
        ("HTTP/1.1 what\r\n\r\n", "well-formed"),
    ] {
        let mut client = ClientFilter::new(&elsewhere, 1, &mut Vec::new()).unwrap();
        let mut answer = answer.as_bytes().to_vec();
        let error = client.received(&mut answer, &mut Vec::new(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn options_that_cannot_be_met_are_refused() {
    let site = Site::new();
    let key = site.folder.path("server.key");
    for (wrong, text) in [
        (TlsClientOptions { key_file: Some(key), ..options() }, "together"),
        (TlsClientOptions { versions: vec!["sslv3".to_owned()], ..options() }, "sslv3"),
        (TlsClientOptions { host: "a b".to_owned(), ..options() }, "'a b'"),
        (TlsClientOptions { ca_file: Some("/no/such".into()), ..options() }, "/no/such"),
    ] {
        let error = TlsClient::load(&wrong).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    // An address is asked for without a name.
    TlsClient::load(&TlsClientOptions { host: "127.0.0.1".to_owned(), ..options() }).unwrap();
}
