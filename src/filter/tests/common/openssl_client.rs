//! OpenSSL as a client in memory.

use openssl::ssl::{Ssl, SslContext, SslMethod, SslOptions, SslStream, SslVerifyMode, SslVersion};
use std::io::{self, Read, Write};

/// What the client has got and what it has to say.
#[derive(Default)]
pub struct Wire(pub Vec<u8>, pub Vec<u8>);

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = self.0.len().min(buffer.len());
        buffer[..len].copy_from_slice(&self.0[..len]);
        self.0.drain(..len);
        Ok(len)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client: the version it speaks and, if it has one, its identity and key.
pub fn client(version: SslVersion, own: Option<(&str, &[u8])>, alpn: &[u8]) -> SslStream<Wire> {
    let mut builder = SslContext::builder(SslMethod::tls_client()).unwrap();
    builder.set_min_proto_version(Some(version)).unwrap();
    builder.set_max_proto_version(Some(version)).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_options(SslOptions::NO_TICKET);
    builder.set_alpn_protos(alpn).unwrap();
    if let Some((identity, key)) = own {
        let (identity, key) = (identity.to_owned(), key.to_vec());
        builder.set_psk_client_callback(move |_, _, to, key_to| {
            to[..identity.len()].copy_from_slice(identity.as_bytes());
            to[identity.len()] = 0;
            key_to[..key.len()].copy_from_slice(&key);
            Ok(key.len())
        });
    }
    let mut ssl = Ssl::new(&builder.build()).unwrap();
    ssl.set_hostname("localhost").unwrap();
    ssl.set_connect_state();
    SslStream::new(ssl, Wire::default()).unwrap()
}
