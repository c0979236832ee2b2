//! The control commands' end of the admin API: one request, one answer, over a UNIX socket or TCP.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::address::AdminAddress;
use super::types::ErrorDocument;
use crate::array::error::{ArrayError, Kind};

/// The longest answer that is read: the status of an array with every object that it can have.
const MAX_ANSWER: usize = 256 << 20;

/// A daemon that can be asked.
pub(super) struct Daemon {
    address: AdminAddress,
    runtime: tokio::runtime::Runtime,
}

impl Daemon {
    pub(super) fn new(address: AdminAddress) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { address, runtime })
    }

    /// A second way to the same daemon, for another thread.
    pub(super) fn another(&self) -> std::io::Result<Self> {
        Self::new(self.address.clone())
    }

    pub(super) fn fetch<T: DeserializeOwned>(&self, path: &str) -> Result<T, ArrayError> {
        self.call(Method::GET, path, None::<&()>)
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ArrayError> {
        self.call(Method::POST, path, Some(body))
    }

    pub(super) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ArrayError> {
        self.call(Method::DELETE, path, None::<&()>)
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ArrayError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| self.confused(&error.to_string()))?,
            None => Vec::new(),
        };
        let (status, answer) = self.runtime.block_on(async {
            match &self.address {
                AdminAddress::Unix(socket) => {
                    let stream =
                        UnixStream::connect(socket).await.map_err(|error| self.unreachable(&error))?;
                    self.exchange(stream, method, path, body).await
                }
                AdminAddress::Tcp(address) => {
                    let stream =
                        TcpStream::connect(address).await.map_err(|error| self.unreachable(&error))?;
                    self.exchange(stream, method, path, body).await
                }
            }
        })?;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(|error| self.confused(&error.to_string()));
        }
        match serde_json::from_slice::<ErrorDocument>(&answer) {
            Ok(document) => Err(document.into()),
            Err(_) => Err(self.confused(&format!("it answered HTTP status {status}"))),
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), ArrayError> {
        let lost = |error: hyper::Error| self.confused(&format!("the connection broke: {error}"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "cleave")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.confused(&error.to_string()))?;
        let response = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| self.confused(&format!("its answer broke off: {error}")))?
            .to_bytes();
        driver.abort();
        Ok((status, answer))
    }

    fn unreachable(&self, error: &std::io::Error) -> ArrayError {
        ArrayError::new(
            Kind::Unreachable,
            format!("reach the daemon at {}", self.address),
            error.to_string(),
            "start it with 'cleave serve', or name it with --admin or --data-dir",
        )
    }

    fn confused(&self, why: &str) -> ArrayError {
        ArrayError::new(
            Kind::Failed,
            format!("talk to the daemon at {}", self.address),
            why,
            "look at the daemon's log, and use the same version of the program at both ends",
        )
    }
}
