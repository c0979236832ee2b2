//! The control commands' end of the admin API: one request and one answer, over a UNIX socket or TLS.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::address::AdminAddress;
use super::credentials::{self, Credentials};
use super::device::{CommandDevice, not_in_band};
use super::frames::Frames;
use super::lasting::{PREFER, RESPOND_ASYNC};
use super::stream::frames::CONTENT_TYPE;
use super::stream::pipe::{Chunks, End, Outgoing, inward, pump};
use super::tls;
use super::types::ErrorDocument;
use crate::array::error::{ArrayError, Kind};
use crate::initiator::url::UnitAddress;
use crate::operator::Verb;

/// The longest answer that is read: the status of an array with the most objects.
const MAX_ANSWER: usize = 256 << 20;

/// The path that takes every verb.
pub(super) const VERBS: &str = "/v1/verbs";

/// How long the answer to a query may take.
const TO_READ: Duration = Duration::from_secs(60);

/// How long the answer to a change may take: a flush of much data to a slow disk takes minutes.
const TO_CHANGE: Duration = Duration::from_secs(300);

/// How often a daemon that works on a request is asked for a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// How long a daemon may be silent while it sends events, or the contents of a volume. It gives a sign of life more often.
const SILENCE: Duration = Duration::from_secs(60);

/// How often a daemon that does not answer is asked again.
const WAIT_POLL: Duration = Duration::from_millis(100);

/// The time that is left for the last try of a wait. A daemon that is there answers within it.
const LAST_TRY: Duration = Duration::from_millis(20);

/// The remedy when no daemon listens.
const START: &str =
    "start it with 'cleave serve' or 'cleave-tcmu serve', or name it with --admin or --data-dir";

/// The remedy when the socket belongs to another user.
const DENIED: &str = "its socket is for root and for the user that it runs as: use sudo, or be that user";

/// `text` as a value in the query of a URL (RFC 3986 2.1).
pub(super) fn in_query(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let encode = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

/// The head of a request.
struct Head<'a> {
    method: Method,
    path: &'a str,
    /// The media type of the body.
    kind: &'a str,
    /// The entity tag that the request is about, if it is about one.
    on: Option<&'a str>,
}

impl<'a> Head<'a> {
    fn new(method: Method, path: &'a str) -> Self {
        Self { method, path, kind: "application/json", on: None }
    }
}

/// The head of an answer, and the task that receives its bytes.
struct Answer {
    method: Method,
    response: Response<Incoming>,
    driver: JoinHandle<()>,
}

/// A daemon, as a control command reaches it.
pub(super) struct Daemon {
    /// The command device by which it is reached in band, instead of by `address`.
    device: Option<CommandDevice>,
    address: AdminAddress,
    /// The credentials for a TCP port.
    credentials: Option<Credentials>,
    runtime: tokio::runtime::Runtime,
}

impl Daemon {
    pub(super) fn new(address: AdminAddress) -> Result<Self, ArrayError> {
        let credentials = Credentials::find(&address)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| ArrayError::io("start", "the runtime", &error))?;
        Ok(Self { device: None, address, credentials, runtime })
    }

    /// The array behind the command device at `device`.
    pub(super) fn in_band(device: UnitAddress) -> Result<Self, ArrayError> {
        let device = Some(CommandDevice::open(device)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| ArrayError::io("start", "the runtime", &error))?;
        Ok(Self { device, address: AdminAddress::find(None, None), credentials: None, runtime })
    }

    /// Whether it is reached in band. Then a verb that lasts is answered when it is done.
    pub(super) fn is_in_band(&self) -> bool {
        self.device.is_some()
    }

    pub(super) fn address(&self) -> &AdminAddress {
        &self.address
    }

    pub(super) fn fetch<T: DeserializeOwned>(&self, path: &str) -> Result<T, ArrayError> {
        if let Some(device) = &self.device {
            return device.fetch(path);
        }
        self.call(Method::GET, path, None::<&()>)
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ArrayError> {
        self.call(Method::POST, path, Some(body))
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
        if let Some(device) = &self.device {
            return if path == VERBS { device.perform(&body) } else { Err(not_in_band()) };
        }
        let limit = if method == Method::GET { TO_READ } else { TO_CHANGE };
        let (status, answer) = self.runtime.block_on(self.ask_within(limit, method, path, body))?;
        self.read(status, &answer)
    }

    /// Has the daemon do a verb.
    pub(super) fn perform<T: DeserializeOwned>(&self, verb: impl Into<Verb>) -> Result<T, ArrayError> {
        self.post(VERBS, &verb.into())
    }

    /// As [`post`](Self::post), for a request that may take hours: it may, as long as the daemon answers requests for the path
    /// `alive`, and `on` the condition that the array has this entity tag. Returns the whole refusal.
    pub(super) fn post_document<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        on: Option<&str>,
        alive: &str,
    ) -> Result<Result<T, (StatusCode, ErrorDocument)>, ArrayError> {
        let body = serde_json::to_vec(body).map_err(|error| self.confused(&error.to_string()))?;
        let head = Head { on, ..Head::new(Method::POST, path) };
        let asked = async { self.collect(self.send(head, Full::new(Bytes::from(body))).await?).await };
        let (status, answer) = self.runtime.block_on(self.lasting(asked, alive))?;
        Ok(self.read_document(status, &answer)?.map_err(|document| (status, document)))
    }

    /// Passes each event at `path` to `told`, until `told` returns false, or Ctrl-C is pressed.
    pub(super) fn follow(&self, path: &str, told: impl FnMut(&str) -> bool) -> Result<(), ArrayError> {
        self.runtime.block_on(async {
            tokio::select! {
                followed = self.follow_on(path, told) => followed,
                _ = tokio::signal::ctrl_c() => Ok(()),
            }
        })
    }

    async fn follow_on(&self, path: &str, mut told: impl FnMut(&str) -> bool) -> Result<(), ArrayError> {
        let empty = Full::new(Bytes::new());
        let answer = self.send(Head::new(Method::GET, path), empty).await?;
        if !answer.response.status().is_success() {
            let (status, answer) = self.collect(answer).await?;
            return self.read::<()>(status, &answer);
        }
        let (mut body, mut frames) = (answer.response.into_body(), Frames::default());
        loop {
            let frame = tokio::time::timeout(SILENCE, body.frame()).await;
            let frame = frame.map_err(|_| self.late(&Method::GET, SILENCE))?;
            let Some(Ok(frame)) = frame else {
                let asked = format!("follow what the daemon at {} tells", self.address);
                let remedy = "when it is there again, go on with '--since' and the last number";
                return Err(ArrayError::new(
                    Kind::Unreachable,
                    asked,
                    "it has ended, or cut the connection",
                    remedy,
                ));
            };
            for data in frame.data_ref().map(|bytes| frames.take(bytes)).unwrap_or_default() {
                if !told(&data) {
                    return Ok(());
                }
            }
        }
    }

    async fn ask_within(
        &self,
        limit: Duration,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), ArrayError> {
        let asked = self.ask(method.clone(), path, body);
        tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| Err(self.late(&method, limit)))
    }

    /// As [`fetch`](Self::fetch), but tries again within `patience` while no daemon answers.
    pub(super) fn fetch_within<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<T, ArrayError> {
        let began = Instant::now();
        loop {
            let left = patience.saturating_sub(began.elapsed());
            let asked = self.ask(Method::GET, path, Vec::new());
            // The timer has to be made within the runtime.
            let asked =
                self.runtime.block_on(async { tokio::time::timeout(left.max(LAST_TRY), asked).await });
            let error = match asked {
                Ok(Ok((status, answer))) => return self.read(status, &answer),
                Ok(Err(error)) => error,
                Err(_) => self.silent(),
            };
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() || error.remedy == DENIED {
                return Err(ArrayError { kind: Kind::Unreachable, ..error });
            }
            std::thread::sleep(WAIT_POLL.min(left));
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), ArrayError> {
        self.collect(self.send(Head::new(method, path), Full::new(Bytes::from(body))).await?).await
    }

    /// Sends the stream `body`. Stream and answer may take long, as long as the daemon answers other requests.
    pub(super) fn send_contents<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Outgoing,
    ) -> Result<T, ArrayError> {
        let (status, answer) = self.runtime.block_on(async {
            let head = Head { kind: CONTENT_TYPE, ..Head::new(Method::PUT, path) };
            let sent = async { self.collect(self.send(head, body).await?).await };
            self.lasting(sent, "/v1/volumes").await
        })?;
        self.read(status, &answer)
    }

    /// Passes the stream in the daemon's answer to `take`, which runs on a thread of its own.
    pub(super) fn take_stream<T: Send>(
        &self,
        path: &str,
        take: impl FnOnce(Chunks) -> Result<T, ArrayError> + Send,
    ) -> Result<T, ArrayError> {
        let (sender, chunks) = inward();
        std::thread::scope(|scope| {
            let taking = scope.spawn(move || take(chunks));
            let pumped = self.runtime.block_on(async {
                let empty = Full::new(Bytes::new());
                let mut answer = self.send(Head::new(Method::GET, path), empty).await?;
                if !answer.response.status().is_success() {
                    let (status, answer) = self.collect(answer).await?;
                    return self.read(status, &answer).map(|()| End::Over);
                }
                Ok(pump(answer.response.body_mut(), sender, SILENCE).await)
            });
            let taken = taking.join().unwrap_or_else(|_| Err(self.confused("a defect in cleave ended it")));
            match pumped? {
                End::Over => taken,
                End::Late => Err(self.late(&Method::GET, SILENCE)),
                End::Broken(why) => Err(self.cut(&Method::GET, &why.to_string())),
            }
        })
    }

    /// Waits for `asked`, however long it takes, as long as the daemon answers requests for the path `alive`.
    async fn lasting<T>(
        &self,
        asked: impl Future<Output = Result<T, ArrayError>>,
        alive: &str,
    ) -> Result<T, ArrayError> {
        let mut asked = std::pin::pin!(asked);
        loop {
            if let Ok(answer) = tokio::time::timeout(SIGN_OF_LIFE, &mut asked).await {
                return answer;
            }
            self.ask_within(TO_READ, Method::GET, alive, Vec::new()).await?;
        }
    }

    async fn send<B>(&self, head: Head<'_>, body: B) -> Result<Answer, ArrayError>
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        if self.device.is_some() {
            return Err(not_in_band());
        }
        match &self.address {
            AdminAddress::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(|error| self.unreachable(&error))?;
                self.exchange(stream, head, body).await
            }
            AdminAddress::Tcp(address) => {
                let Some(Credentials { known, .. }) = &self.credentials else {
                    return Err(self.confused("there is no token for it"));
                };
                let stream = TcpStream::connect(address).await.map_err(|error| self.unreachable(&error))?;
                let stream = tls::connect(stream, *address, known).await;
                let stream = stream.map_err(|error| self.not_shaken(&error))?;
                self.exchange(stream, head, body).await
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, status: StatusCode, answer: &[u8]) -> Result<T, ArrayError> {
        self.read_document(status, answer)?.map_err(ArrayError::from)
    }

    fn read_document<T: DeserializeOwned>(
        &self,
        status: StatusCode,
        answer: &[u8],
    ) -> Result<Result<T, ErrorDocument>, ArrayError> {
        if status.is_success() {
            return serde_json::from_slice(answer).map(Ok).map_err(|error| self.confused(&error.to_string()));
        }
        match serde_json::from_slice::<ErrorDocument>(answer) {
            Ok(document) => Ok(Err(document)),
            Err(_) => Err(self.confused(&format!("it answered HTTP status {status}"))),
        }
    }

    async fn exchange<B>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        Head { method, path, kind, on }: Head<'_>,
        body: B,
    ) -> Result<Answer, ArrayError>
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let lost = |error: hyper::Error| self.lost(&method, &error);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let driver = tokio::spawn(async { drop(connection.await) });
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(header::HOST, "cleave")
            .header(PREFER, RESPOND_ASYNC)
            .header(header::CONTENT_TYPE, kind);
        if let Some(tag) = on {
            request = request.header(header::IF_MATCH, tag);
        }
        if let Some(Credentials { token, .. }) = &self.credentials {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.bearer()));
        }
        let request = request.body(body).map_err(|error| self.confused(&error.to_string()))?;
        let response = sender.send_request(request).await.map_err(lost)?;
        Ok(Answer { method, response, driver })
    }

    async fn collect(&self, answer: Answer) -> Result<(StatusCode, Bytes), ArrayError> {
        let Answer { method, response, driver } = answer;
        let status = response.status();
        let answer = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| match error.downcast_ref::<hyper::Error>() {
                Some(error) => self.lost(&method, error),
                None => self.confused(&format!("its answer cannot be read: {error}")),
            })?
            .to_bytes();
        driver.abort();
        Ok((status, answer))
    }

    fn unreachable(&self, error: &std::io::Error) -> ArrayError {
        let remedy = match error.kind() {
            std::io::ErrorKind::PermissionDenied => DENIED,
            _ => START,
        };
        let asked = format!("reach the daemon at {}", self.address);
        ArrayError::new(Kind::Unreachable, asked, error.to_string(), remedy)
    }

    /// The error of a failed TLS handshake.
    fn not_shaken(&self, error: &std::io::Error) -> ArrayError {
        let asked = format!("reach the daemon at {}", self.address);
        let (why, remedy) = match tls::is_stranger(error) {
            true => (
                "whoever listens there shows another certificate than the daemon that the token is of"
                    .to_owned(),
                format!(
                    "see which certificate the daemon has ('cleave: certificate' on its standard output, 'cleave token create'), and use \
                     a token of it, or name its certificate in {}",
                    credentials::AUTHORITY
                ),
            ),
            false => (
                format!("whoever listens there does no TLS as the daemon does: {error}"),
                "look at the address, and at the daemon's log".to_owned(),
            ),
        };
        ArrayError::new(Kind::Unreachable, asked, why, remedy)
    }

    /// The error of an exchange that hyper could not end. An answer that is no HTTP comes from something else than a daemon.
    fn lost(&self, method: &Method, error: &hyper::Error) -> ArrayError {
        match error.is_parse() || error.is_user() {
            true => self.confused(&format!("its answer is no HTTP: {error}")),
            false => self.cut(method, &error.to_string()),
        }
    }

    /// The error of a connection that broke before the whole answer came.
    fn cut(&self, method: &Method, error: &str) -> ArrayError {
        let asked = format!("hear from the daemon at {}", self.address);
        let why = format!("it has ended, or the connection broke ({error})");
        let remedy = match *method {
            Method::GET => "see whether it runs by 'cleave status', then repeat",
            _ => {
                "it is not known whether what was asked for is done: when the daemon runs, see 'cleave status' and 'cleave audit'"
            }
        };
        ArrayError::new(Kind::Unreachable, asked, why, remedy)
    }

    fn silent(&self) -> ArrayError {
        let asked = format!("reach the daemon at {}", self.address);
        let why = "it takes the connection, but does not answer yet";
        ArrayError::new(Kind::Unreachable, asked, why, "wait longer, or look at the daemon's log")
    }

    fn late(&self, method: &Method, limit: Duration) -> ArrayError {
        let asked = format!("hear from the daemon at {}", self.address);
        let why = format!("it has not answered within {} s", limit.as_secs());
        let remedy = match *method {
            Method::GET => "look at the daemon's log, and at the disks of its data",
            _ => {
                "what was asked for may still be done: see 'cleave status', the daemon's log, and the disks of its data"
            }
        };
        ArrayError::new(Kind::TimedOut, asked, why, remedy)
    }

    pub(super) fn confused(&self, why: &str) -> ArrayError {
        ArrayError::new(
            Kind::Failed,
            format!("talk to the daemon at {}", self.address),
            why,
            "look at the daemon's log, and use the same version of the program at both ends",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(address: &str) -> Daemon {
        Daemon::new(address.parse().unwrap()).unwrap()
    }

    #[test]
    fn who_may_not_open_the_socket_is_not_told_to_start_a_daemon() {
        let daemon = daemon("unix:/run/x");
        let denied = daemon.unreachable(&std::io::ErrorKind::PermissionDenied.into());
        assert_eq!(denied.kind, Kind::Unreachable);
        assert!(denied.remedy.contains("sudo") && !denied.remedy.contains("serve"), "{denied}");
        let absent = daemon.unreachable(&std::io::ErrorKind::NotFound.into());
        assert!(absent.remedy.contains("'cleave serve' or 'cleave-tcmu serve'"), "{absent}");
    }

    #[test]
    fn a_wait_ends_in_time_when_nobody_is_there_or_nobody_answers() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let address = format!("unix:{}", socket.display());
        let wait = || {
            let began = Instant::now();
            let within = Duration::from_millis(300);
            let error = daemon(&address).fetch_within::<()>("/v1/status", within).unwrap_err();
            assert!(began.elapsed() >= within && began.elapsed() < Duration::from_secs(10));
            assert_eq!(error.kind, Kind::Unreachable);
            error.to_string()
        };
        assert!(wait().contains("start it with"));
        let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(wait().contains("does not answer yet"));
    }

    /// The error of a control command whose daemon reads the request, answers with `answer`, and is killed.
    fn cut_off(method: Method, answer: &'static str) -> ArrayError {
        use std::io::{Read, Write};
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let killed = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let asked = daemon(&format!("unix:{}", socket.display())).call::<()>(method, "/v1/x", None::<&()>);
        killed.join().unwrap();
        asked.unwrap_err()
    }

    #[test]
    fn a_daemon_that_dies_meanwhile_is_told_as_one_that_is_not_there() {
        for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"] {
            let read = cut_off(Method::GET, answer);
            assert_eq!(read.kind, Kind::Unreachable, "{read}");
            assert!(read.remedy.contains("then repeat"), "{read}");
            let changed = cut_off(Method::POST, answer);
            assert_eq!(changed.kind, Kind::Unreachable, "{changed}");
            assert!(changed.remedy.starts_with("it is not known whether"), "{changed}");
        }
        let stranger = cut_off(Method::GET, "220 mail.example.org ESMTP\r\n");
        assert_eq!(stranger.kind, Kind::Failed, "{stranger}");
        assert!(stranger.remedy.contains("same version"), "{stranger}");
    }

    #[test]
    fn an_answer_that_does_not_come_is_told_with_its_limit_and_what_may_have_happened() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let daemon = daemon(&format!("unix:{}", socket.display()));
        let ask = |method| {
            let asked =
                async { daemon.ask_within(Duration::from_millis(50), method, "/v1/x", Vec::new()).await };
            daemon.runtime.block_on(asked).unwrap_err()
        };
        let read = ask(Method::GET);
        assert_eq!(read.kind, Kind::TimedOut);
        assert!(read.to_string().contains("has not answered within 0 s; look at"), "{read}");
        let changed = ask(Method::POST);
        assert!(changed.remedy.starts_with("what was asked for may still be done"), "{changed}");
    }
}
