//! An iSCSI session over TCP: the shell around [`Client`], on a thread of its own.
//!
//! The thread owns the socket and the protocol machine; callers hand it questions and block on their own answers, so
//! any number of commands are under way at once. When the session breaks, every open question is answered with why.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::InitiatorError;
use crate::iscsi::client::{Answer, Client, Event, Login};
use crate::iscsi::pdu::task::TaskResponseCode;
use crate::sam::{Cdb, Lun};

/// How long to wait for a TCP connection and for the login.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for the answer to a logout; the session is over either way.
const GOODBYE: Duration = Duration::from_secs(2);

type Tell<T> = SyncSender<Result<T, InitiatorError>>;

enum Ask {
    Command { lun: Lun, cdb: Cdb, data_out: Vec<u8>, expected_in: u32, tell: Tell<Answer> },
    Abort(Tell<()>),
    SendTargets(Tell<Vec<u8>>),
    Logout,
}

#[derive(Default)]
struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

/// An open session. Dropping it logs out.
pub struct Session {
    address: String,
    asks: UnboundedSender<Ask>,
    traffic: Arc<Traffic>,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Connects to `address` and logs in.
    ///
    /// # Errors
    /// No connection, or the target refuses.
    pub fn open(address: &str, login: Login) -> Result<Self, InitiatorError> {
        let (asks, questions) = unbounded_channel();
        let (ready, opened) = sync_channel(1);
        let traffic = Arc::new(Traffic::default());
        let shell = (address.to_owned(), Arc::clone(&traffic));
        let spawned = std::thread::Builder::new().name("iscsi-session".into()).spawn(move || {
            let (address, traffic) = shell;
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(live(address, login, questions, traffic, ready)),
                Err(error) => drop(ready.send(Err(InitiatorError::broken(&address, &error)))),
            }
        });
        let thread = spawned.map_err(|error| InitiatorError::broken(address, &error))?;
        let session = Self { address: address.to_owned(), asks, traffic, thread: Some(thread) };
        session.await_answer(&opened)?;
        Ok(session)
    }

    /// Runs one command to its end.
    ///
    /// # Errors
    /// The session ended before the command.
    pub fn command(
        &self,
        lun: Lun,
        cdb: Cdb,
        data_out: Vec<u8>,
        expected_in: u32,
    ) -> Result<Answer, InitiatorError> {
        self.ask(|tell| Ask::Command { lun, cdb, data_out, expected_in, tell })
    }

    /// Aborts every command under way.
    ///
    /// # Errors
    /// The session ended, or the target did not confirm.
    pub fn abort(&self) -> Result<(), InitiatorError> {
        self.ask(Ask::Abort)
    }

    /// The text that answers SendTargets.
    ///
    /// # Errors
    /// The session ended.
    pub fn send_targets(&self) -> Result<Vec<u8>, InitiatorError> {
        self.ask(Ask::SendTargets)
    }

    /// Bytes sent and received so far.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        (self.traffic.sent.load(Ordering::Relaxed), self.traffic.received.load(Ordering::Relaxed))
    }

    fn ask<T>(&self, question: impl FnOnce(Tell<T>) -> Ask) -> Result<T, InitiatorError> {
        let (tell, told) = sync_channel(1);
        // If the session is over the question is dropped with its sender, and so answered below.
        let _ = self.asks.send(question(tell));
        self.await_answer(&told)
    }

    fn await_answer<T>(&self, told: &Receiver<Result<T, InitiatorError>>) -> Result<T, InitiatorError> {
        told.recv().unwrap_or_else(|_| {
            let over = io::Error::new(io::ErrorKind::ConnectionAborted, "the session is over");
            Err(InitiatorError::broken(&self.address, &over))
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.asks.send(Ask::Logout);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The life of a session, from connecting to its end.
async fn live(
    address: String,
    login: Login,
    questions: UnboundedReceiver<Ask>,
    traffic: Arc<Traffic>,
    ready: Tell<()>,
) {
    let mut shell = match timeout(PATIENCE, connect(&address, login, questions, traffic)).await {
        Ok(Ok(shell)) => shell,
        Ok(Err(error)) => return drop(ready.send(Err(error))),
        Err(_) => {
            let reason = format!("no answer within {} s", PATIENCE.as_secs());
            return drop(ready.send(Err(InitiatorError::Connect { address, reason })));
        }
    };
    let _ = ready.send(Ok(()));
    let error = shell.serve().await;
    shell.open.fail(&error);
}

async fn connect(
    address: &str,
    login: Login,
    questions: UnboundedReceiver<Ask>,
    traffic: Arc<Traffic>,
) -> Result<Shell, InitiatorError> {
    let refuse =
        |error: io::Error| InitiatorError::Connect { address: address.to_owned(), reason: error.to_string() };
    let stream = TcpStream::connect(address).await.map_err(refuse)?;
    stream.set_nodelay(true).map_err(refuse)?;
    let (reader, writer) = stream.into_split();
    let open = Open::default();
    let mut shell = Shell {
        address: address.to_owned(),
        client: Client::new(login),
        reader,
        writer,
        questions,
        open,
        sending: Vec::new(),
        sent: 0,
        goodbye: false,
        traffic,
    };
    while shell.client.event() != Some(Event::LoggedIn) {
        shell.step().await?;
    }
    Ok(shell)
}

/// The questions that are not answered.
#[derive(Default)]
struct Open {
    commands: HashMap<u32, Tell<Answer>>,
    /// By the tag of the TMF: the tag of the command.
    aborts: HashMap<u32, u32>,
    /// Who waits until no abort is under way, and whether all went well so far.
    aborters: Vec<Tell<()>>,
    refused: bool,
    texts: HashMap<u32, Tell<Vec<u8>>>,
}

impl Open {
    fn fail(&mut self, error: &InitiatorError) {
        self.commands.drain().for_each(|(_, tell)| drop(tell.send(Err(error.clone()))));
        self.texts.drain().for_each(|(_, tell)| drop(tell.send(Err(error.clone()))));
        self.aborters.drain(..).for_each(|tell| drop(tell.send(Err(error.clone()))));
    }

    fn aborts_are_over(&mut self) {
        if !self.aborts.is_empty() {
            return;
        }
        let refused = std::mem::take(&mut self.refused);
        let refusal = || InitiatorError::Impossible("the target did not abort every command".into());
        let result = if refused { Err(refusal()) } else { Ok(()) };
        self.aborters.drain(..).for_each(|tell| drop(tell.send(result.clone())));
    }
}

struct Shell {
    address: String,
    client: Client,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    questions: UnboundedReceiver<Ask>,
    open: Open,
    sending: Vec<u8>,
    sent: usize,
    goodbye: bool,
    traffic: Arc<Traffic>,
}

impl Shell {
    /// Until the session ends, for whatever reason.
    async fn serve(&mut self) -> InitiatorError {
        loop {
            while let Some(event) = self.client.event() {
                if event == Event::LoggedOut {
                    return self.over("logged out");
                }
                self.take(event);
            }
            let step = match self.goodbye {
                true => timeout(GOODBYE, self.step()).await.unwrap_or_else(|_| Err(self.over("logged out"))),
                false => self.step().await,
            };
            if let Err(error) = step {
                return error;
            }
        }
    }

    fn over(&self, why: &str) -> InitiatorError {
        InitiatorError::Broken { address: self.address.clone(), reason: why.to_owned() }
    }

    /// One thing: some bytes sent, some bytes received, or one question taken.
    async fn step(&mut self) -> Result<(), InitiatorError> {
        if self.sent == self.sending.len() {
            self.sending.clear();
            self.sent = 0;
            std::mem::swap(&mut self.sending, self.client.output());
        }
        let broken = |address: &str, error: &io::Error| InitiatorError::broken(address, error);
        tokio::select! {
            written = self.writer.write(&self.sending[self.sent..]), if self.sent < self.sending.len() => {
                let count = written.map_err(|error| broken(&self.address, &error))?;
                self.sent += count;
                self.traffic.sent.fetch_add(count as u64, Ordering::Relaxed);
            }
            received = self.reader.read(self.client.space()) => {
                let count = received.map_err(|error| broken(&self.address, &error))?;
                if count == 0 {
                    return Err(self.over("the target closed it"));
                }
                self.traffic.received.fetch_add(count as u64, Ordering::Relaxed);
                let address = &self.address;
                self.client.received(count)
                    .map_err(|reason| InitiatorError::Session { address: address.clone(), reason })?;
            }
            question = self.questions.recv(), if !self.goodbye => self.answer(question.unwrap_or(Ask::Logout)),
        }
        Ok(())
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Command { lun, cdb, data_out, expected_in, tell } => {
                let tag = self.client.command(lun, cdb, data_out, expected_in);
                self.open.commands.insert(tag, tell);
            }
            Ask::Abort(tell) => {
                for tag in self.open.commands.keys().copied() {
                    self.open.aborts.insert(self.client.abort_task(tag), tag);
                }
                self.open.aborters.push(tell);
                self.open.aborts_are_over();
            }
            Ask::SendTargets(tell) => {
                let tag = self.client.send_targets();
                self.open.texts.insert(tag, tell);
            }
            Ask::Logout => {
                self.client.logout();
                self.goodbye = true;
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Command(tag, answer) => {
                if let Some(tell) = self.open.commands.remove(&tag) {
                    let _ = tell.send(Ok(answer));
                }
            }
            Event::TaskManagement(tag, response) => {
                let Some(command) = self.open.aborts.remove(&tag) else { return };
                match response {
                    TaskResponseCode::FUNCTION_COMPLETE => {
                        self.client.forget(command);
                        if let Some(tell) = self.open.commands.remove(&command) {
                            let _ = tell.send(Err(InitiatorError::Aborted));
                        }
                    }
                    // It ended by itself in the meantime.
                    TaskResponseCode::TASK_DOES_NOT_EXIST => {}
                    _ => self.open.refused = true,
                }
                self.open.aborts_are_over();
            }
            Event::Text(tag, text) => {
                if let Some(tell) = self.open.texts.remove(&tag) {
                    let _ = tell.send(Ok(text));
                }
            }
            Event::LoggedIn | Event::LoggedOut => {}
        }
    }
}
