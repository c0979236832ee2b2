//! One connection: moves bytes, commands and answers between the socket, the core and the array.
//!
//! One turn takes mail, polls events, hands commands over, and at once takes the mail that they caused. Then
//! everything is sent in as few vectored writes as the socket takes. The timer is set anew only when it has run out
//! or has to run out sooner, so received bytes do not touch it. Nothing is awaited while mail or input is in hand.
//! While the socket does not take the output, input is read only as far as the core wants it, so a slow initiator
//! stops itself.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

use super::admission::{PORTAL_GROUP, PortalGroup, Refused, SessionPlace, Why};
use super::mailbox::{Dropped, Mail, Mailbox};
use super::places::LoginPlace;
use crate::array::LoginRefusal;
use crate::array::door::Session;
use crate::array::notice::{Notice, SessionNotice};
use crate::iscsi::connection::{
    Announce, Closed, Command, CommandEnd, Connection, Event, Failed, MAX_RECEIVE, Manage,
};
use crate::iscsi::framer::{Digests, FrameError};
use crate::iscsi::keys::Terms;
use crate::iscsi::login::{Offer, Proposal};
use crate::lu::{Announced, Ending, Outcome, Patience, Reply, ReplySink, Task, Together};
use crate::memory::{Purse, Wake};
use crate::sam::{IscsiName, TaskTag};
use crate::scsi::opcode;
use crate::scsi::sense::Asc;

/// The parameters that this target offers in a login.
const OFFER: Offer = Offer {
    terms: Terms {
        digests: Digests { header: true, data: true },
        initial_r2t: false,
        max_receive: MAX_RECEIVE as u32,
        max_burst: 1 << 20,
        first_burst: 256 * 1024,
        max_outstanding_r2t: 8,
        time_to_retain: 0,
        ..Terms::DEFAULT
    },
    portal_group: PORTAL_GROUP,
};

/// The most pieces of one vectored write. The kernel takes at most 1024.
const MAX_PIECES: usize = 256;

/// The most commands that are handed over before their answers are taken.
const BATCH: usize = 32;

/// How long commands may still run when the daemon stops.
const DRAIN: Duration = Duration::from_secs(5);

/// How long the remaining output may take when an initiator's connection is over.
const LINGER: Duration = Duration::from_secs(5);

/// The initiator that has logged in.
struct LoggedIn {
    initiator: IscsiName,
    session: Option<Arc<Session>>,
    /// The session's place, kept until the session's tasks are gone.
    place: SessionPlace,
}

/// The command has ended already.
struct Ended;

/// Why this side ends a connection.
#[derive(Clone, Copy, Debug)]
enum Cause {
    /// The protocol demands it.
    Closed(Closed),
    /// The login was refused, and the refusal has been logged.
    LoginRefused,
    /// Another part of the daemon demands it.
    Dropped(Dropped),
    /// The daemon stops.
    Stopped,
}

impl Cause {
    /// The cause in words. The texts are few, whatever has been received.
    fn words(self) -> String {
        match self {
            Self::Closed(Closed::Stream(FrameError::DataTooLong { .. })) => {
                "a data segment that is longer than was declared".into()
            }
            Self::Closed(reason) => reason.to_string(),
            Self::LoginRefused => "the login was refused".into(),
            Self::Dropped(Dropped::Operator) => "the operator dropped it".into(),
            Self::Dropped(Dropped::Reinstated) => {
                "session reinstatement: the initiator has logged in again, and a new session takes its place"
                    .into()
            }
            Self::Dropped(Dropped::Reset) => "its target was reset".into(),
            Self::Stopped => "the daemon stops".into(),
        }
    }
}

/// The connection's task.
pub(super) struct Conn {
    group: Arc<PortalGroup>,
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    core: Connection,
    mailbox: Arc<Mailbox>,
    sink: Arc<dyn ReplySink>,
    mail: Vec<Mail>,
    /// Writes of this batch that are to be started.
    writes: Together,
    /// Commands that are announced to a unit and have neither been handed over nor ended.
    announced: HashMap<TaskTag, Announced>,
    /// The place of a connection that has not logged in. `None` after the login.
    login: Option<LoginPlace>,
    logged_in: Option<LoggedIn>,
    /// Whether anything has been received.
    received: bool,
    /// Why the connection is over, if this side ended it.
    cause: Option<Cause>,
    /// Whether something became ready while answers were sent.
    more: bool,
    /// When the first command with data for the medium in this batch was tried on this thread.
    tried: Option<Instant>,
    /// When the present batch began.
    batch: Instant,
    /// The command that is timed, and when its batch began.
    timed: Option<(TaskTag, Instant)>,
    /// Until when the remaining output may be sent. Set when nothing more is received.
    ending: Option<Instant>,
}

impl Conn {
    pub(super) fn new(
        group: Arc<PortalGroup>,
        stream: TcpStream,
        peer: SocketAddr,
        login: LoginPlace,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
        let local = stream.local_addr()?;
        let mailbox = Arc::new(Mailbox::default());
        let sink: Arc<dyn ReplySink> = Arc::clone(&mailbox) as Arc<dyn ReplySink>;
        let now = Instant::now();
        let core = Connection::new(OFFER, now);
        Ok(Self {
            group,
            stream,
            peer,
            local,
            core,
            mailbox,
            sink,
            mail: Vec::new(),
            writes: Together::default(),
            announced: HashMap::new(),
            login: Some(login),
            logged_in: None,
            received: false,
            cause: None,
            more: false,
            tried: None,
            batch: now,
            timed: None,
            ending: None,
        })
    }

    /// Serves the connection until either side ends it, and then ends the session's tasks.
    pub(super) async fn run(mut self, stopped: watch::Receiver<bool>) {
        let served = self.serve(stopped).await;
        self.writes.start();
        self.tell_end(served.err());
        drop(self.stream);
        self.core.lost();
        if let Some(LoggedIn { session, place, .. }) = self.logged_in.take() {
            if let Some(session) = session {
                let (done, gone) = oneshot::channel();
                session.close(Box::new(move || {
                    let _ = done.send(()); // the waiting task may be gone
                }));
                let _ = gone.await;
            }
            drop(place);
        }
    }

    /// Logs the end of a session, or of a connection that did not log in, in one line. A connection that sends
    /// nothing, such as a port scan, is logged at debug only.
    fn tell_end(&self, error: Option<io::Error>) {
        let cause = match (self.cause, &error) {
            (Some(cause), _) => cause.words(),
            (None, Some(_)) => "the connection was lost".into(),
            (None, None) if self.logged_in.is_none() => {
                "the initiator closed in the middle of its login".into()
            }
            (None, None) => "the initiator closed the connection".into(),
        };
        let (peer, error) = (self.peer, error.as_ref().map(tracing::field::display));
        if let Some(LoggedIn { initiator, session, .. }) = &self.logged_in {
            let target = session.as_ref().map(|session| session.nexus().port.name.as_str());
            let id = session.as_ref().map(|session| session.nexus().id.0);
            tracing::info!(%peer, %initiator, target, session = id, cause, error, "session ended");
            let session = self.notice(initiator, session.as_ref());
            return self.group.array.tell(|| Notice::SessionEnded { session, cause });
        }
        match self.cause {
            Some(Cause::Closed(Closed::Refused(status))) => {
                let refusal = self.core.refusal();
                let claimed_initiator = refusal.and_then(|refusal| refusal.claimed.as_deref());
                let why = refusal.map_or("the target gives no other reason", |refusal| refusal.why);
                let cause = format!("status {:04x}h: {why}", status.0);
                tracing::warn!(%peer, claimed_initiator, cause, "login refused");
                self.group.array.tell(|| Notice::LoginRefused {
                    peer: peer.to_string(),
                    claimed_initiator: claimed_initiator.unwrap_or_default().to_owned(),
                    target: None,
                    claimed_target: None,
                    cause,
                });
            }
            Some(Cause::LoginRefused | Cause::Dropped(_) | Cause::Stopped) => {
                tracing::debug!(%peer, cause, "connection over");
            }
            None if !self.received => tracing::debug!(%peer, cause, error, "connection over"),
            Some(Cause::Closed(_)) | None => tracing::info!(%peer, cause, error, "connection over"),
        }
    }

    /// The session of this connection, for a notice.
    fn notice(&self, initiator: &IscsiName, session: Option<&Arc<Session>>) -> SessionNotice {
        let nexus = session.map(|session| session.nexus());
        SessionNotice {
            id: nexus.map(|nexus| nexus.id.0),
            initiator: initiator.to_string(),
            target: nexus.map(|nexus| nexus.port.name.clone()),
            peer: self.peer.to_string(),
        }
    }

    async fn serve(&mut self, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
        let first = self.core.deadline().unwrap_or_else(Instant::now);
        let timer = tokio::time::sleep_until(first.into());
        tokio::pin!(timer);
        loop {
            if self.turn(&stopped).await.is_break() {
                self.end_by(LINGER);
            }
            let held = !self.core.wants_input();
            self.flush()?;
            if self.finished() {
                return Ok(());
            }
            // Commands that were received and held back may go on; nothing else would wake the connection.
            let goes_on = held && self.core.wants_input() || std::mem::take(&mut self.more);
            if goes_on || !self.mailbox.rest() {
                continue;
            }
            if let Some(sooner) = self.wakes_at().filter(|at| *at < timer.deadline().into_std()) {
                timer.as_mut().reset(sooner.into());
            }
            let waiting = self.core.queued() > 0;
            let wants = self.ending.is_none() && self.core.wants_input();
            let draining = self.ending.is_some();
            tokio::select! {
                () = self.mailbox.woken() => {}
                open = exchange(&mut self.stream, &mut self.core, wants, waiting) => if open? {
                    self.received = true;
                } else {
                    return Ok(());
                },
                () = &mut timer => {
                    let now = Instant::now();
                    self.core.expire(now);
                    let next = self.wakes_at().unwrap_or(now + LINGER);
                    timer.as_mut().reset(next.max(now + Duration::from_millis(10)).into());
                }
                _ = stopped.wait_for(|stopped| *stopped), if !draining => {
                    self.cause.get_or_insert(Cause::Stopped);
                    self.end_by(DRAIN);
                }
            }
        }
    }

    /// The next time at which something has to be done.
    fn wakes_at(&self) -> Option<Instant> {
        self.ending.or(self.core.deadline())
    }

    /// Stops receiving; the remaining output may take `patience`.
    fn end_by(&mut self, patience: Duration) {
        self.ending.get_or_insert_with(|| Instant::now() + patience);
    }

    fn finished(&self) -> bool {
        self.ending.is_some_and(|ending| {
            (self.core.queued() == 0 && self.core.owed() == 0) || Instant::now() >= ending
        })
    }

    /// Handles all mail and all events. Breaks when the connection is over.
    async fn turn(&mut self, stopped: &watch::Receiver<bool>) -> ControlFlow<()> {
        let now = Instant::now();
        self.batch = now;
        loop {
            let mut worked = self.read_mail(stopped)?;
            self.tried = None;
            for _ in 0..BATCH {
                let Some(event) = self.core.poll(now) else { break };
                worked = true;
                self.handle(event).await?;
            }
            self.writes.start();
            if let Some(began) = self.tried.take() {
                self.group.brake.tried(began);
            }
            if !worked {
                return ControlFlow::Continue(());
            }
        }
    }

    fn read_mail(&mut self, stopped: &watch::Receiver<bool>) -> ControlFlow<(), bool> {
        let mut mail = std::mem::take(&mut self.mail);
        self.mailbox.take(&mut mail);
        let any = !mail.is_empty();
        let mut dropped = false;
        for mail in mail.drain(..) {
            match mail {
                Mail::Ended(tag, ending) => {
                    if !self.announced.is_empty() {
                        self.announced.remove(&tag);
                    }
                    if let Some((_, began)) = self.timed.take_if(|(timed, _)| *timed == tag) {
                        self.group.array.pulse().note(began.elapsed());
                    }
                    match ending {
                        Ending::Completed(outcome) => self.core.complete(tag.0, answer(outcome)),
                        Ending::Aborted => self.core.aborted(tag.0),
                    }
                }
                Mail::Managed(tag, response) => self.core.managed(tag, response),
                Mail::Granted => self.core.granted(),
                Mail::LoggedOut => self.core.logged_out(),
                // When the whole daemon stops, commands may finish.
                Mail::Drop(_) if *stopped.borrow() => {
                    self.cause.get_or_insert(Cause::Stopped);
                    self.end_by(DRAIN);
                }
                Mail::Drop(why) => {
                    self.cause.get_or_insert(Cause::Dropped(why));
                    self.ending = Some(Instant::now());
                    dropped = true;
                }
            }
        }
        self.mail = mail;
        if dropped { ControlFlow::Break(()) } else { ControlFlow::Continue(any) }
    }

    async fn handle(&mut self, event: Event) -> ControlFlow<()> {
        if !matches!(event, Event::Command(_)) {
            self.writes.start();
        }
        match event {
            Event::Command(command) => self.submit(command),
            Event::Announce(announce) => self.announce(announce),
            Event::Failed(failed) => self.fail(failed),
            Event::Permit(asked) => self.permit(asked),
            Event::Manage(manage) => self.manage(manage),
            Event::Login(proposal) => self.log_in(&proposal).await,
            Event::Discover => self.discover(),
            Event::Logout => {
                let mailbox = Arc::clone(&self.mailbox);
                let done = Box::new(move || mailbox.post(Mail::LoggedOut));
                match self.session() {
                    Some(session) => session.close(done),
                    None => done(),
                }
            }
            Event::Closed(reason) => {
                self.cause.get_or_insert(Cause::Closed(reason));
                if let (Closed::ColdReset, Some(session)) = (reason, self.session()) {
                    self.group.drop_sessions(&session.nexus().port.name);
                }
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn session(&self) -> Option<&Arc<Session>> {
        self.logged_in.as_ref()?.session.as_ref()
    }

    fn initiator(&self) -> Option<&IscsiName> {
        self.logged_in.as_ref().map(|logged_in| &logged_in.initiator)
    }

    fn submit(&mut self, command: Command) {
        let Command { lun, tag, attribute, cdb, data_out, data_in, room, announced } = command;
        let tag = TaskTag(tag);
        let Ok(announced) = self.announced(tag, announced) else { return };
        let patience = self.patience(&data_out);
        if self.timed.is_none() && opcode::moves_blocks(&cdb) {
            self.timed = Some((tag, self.batch));
        }
        // The core hands commands over in a normal session only.
        let Some(session) = self.logged_in.as_ref().and_then(|logged_in| logged_in.session.as_ref()) else {
            return;
        };
        let reply = Reply::new(Arc::clone(&self.sink), tag);
        let nexus = session.nexus().id;
        let task = Task { nexus, tag, attribute, cdb, data_out, data_in, room, patience, reply };
        match announced {
            Some(announced) => {
                self.writes.start();
                announced.submit(task);
            }
            None => {
                self.writes.before(&task);
                if let Some(work) = session.admit(lun, task) {
                    self.writes.take(work);
                }
            }
        }
    }

    /// The patience of a command with this data-out. It is tried on this thread, unless the kernel might put the
    /// thread to sleep over the data.
    fn patience(&mut self, data_out: &[u8]) -> Patience {
        if data_out.is_empty() {
            return Patience::Now;
        }
        let patience = self.group.brake.patience();
        if patience == Patience::Now && self.tried.is_none() {
            self.tried = Some(Instant::now());
        }
        patience
    }

    fn announce(&mut self, Announce { lun, tag }: Announce) {
        let announced =
            self.session().and_then(|session| session.announce(lun, TaskTag(tag), Arc::clone(&self.sink)));
        match announced {
            Some(announced) => drop(self.announced.insert(TaskTag(tag), announced)),
            None => self.core.unannounced(tag),
        }
    }

    fn fail(&mut self, Failed { lun, tag, cdb, fault, announced }: Failed) {
        let tag = TaskTag(tag);
        let Ok(announced) = self.announced(tag, announced) else { return };
        let Some(session) = self.session() else { return };
        let (reply, asc) = (Reply::new(Arc::clone(&self.sink), tag), Asc(fault.code()));
        match announced {
            Some(announced) => announced.fail(reply, &cdb, asc),
            None => session.fail(lun, reply, &cdb, asc),
        }
    }

    /// The token of a command, if it was `announced`. The core hands over no command that it knows to have ended.
    fn announced(&mut self, tag: TaskTag, announced: bool) -> Result<Option<Announced>, Ended> {
        if !announced {
            return Ok(None);
        }
        self.announced.remove(&tag).map(Some).ok_or(Ended)
    }

    /// A function that reaches tasks of others needs write access to the unit. TARGET COLD RESET needs the operator's
    /// permission as well.
    fn permit(&mut self, asked: Manage) {
        let Manage { tag, lun, function, cold } = asked;
        let permitted = self.session().is_some_and(|session| session.permits(lun, function));
        if !permitted {
            tracing::debug!(peer = %self.peer, initiator = self.initiator().map(IscsiName::as_str), ?function, lun = lun.number(), "task management refused: the map is read-only");
        }
        let granted = permitted && (!cold || self.may_reset_cold());
        self.core.permit(tag, granted, Instant::now());
    }

    fn may_reset_cold(&self) -> bool {
        let granted = self.initiator().is_some_and(|initiator| self.group.cold_reset_granted(initiator));
        if !granted {
            let target = self.session().map(|session| session.nexus().port.name.as_str());
            tracing::warn!(peer = %self.peer, initiator = self.initiator().map(IscsiName::as_str), target, "TARGET COLD RESET refused: 'cold_reset' under [iscsi] in the configuration does not list this initiator");
        }
        granted
    }

    fn manage(&self, manage: Manage) {
        let Some(session) = self.session() else { return };
        let mailbox = Arc::clone(&self.mailbox);
        let done = Box::new(move |response| mailbox.post(Mail::Managed(manage.tag, response)));
        session.manage(manage.lun, manage.function, done);
    }

    async fn log_in(&mut self, proposal: &Proposal) {
        let initiator = proposal.initiator.name.clone();
        match self.group.admit(proposal, &self.mailbox).await {
            Ok((place, session)) => {
                if let Some(session) = &session {
                    let mailbox = Arc::clone(&self.mailbox);
                    session.set_dropper(Box::new(move || mailbox.post(Mail::Drop(Dropped::Operator))));
                    session.set_peer(self.peer.to_string());
                }
                let target = session.as_ref().map(|session| session.nexus().port.name.as_str());
                let id = session.as_ref().map(|session| session.nexus().id.0);
                tracing::info!(peer = %self.peer, %initiator, target, session = id, "session began");
                let notice = self.notice(&initiator, session.as_ref());
                self.group.array.tell(|| Notice::SessionBegan(notice));
                tracing::Span::current().record("initiator", initiator.as_str()).record("target", target);
                tracing::Span::current().record("id", id);
                let account = self.group.array.budget().account(initiator.as_str());
                let purse = Purse::new(account, Arc::clone(&self.mailbox) as Arc<dyn Wake>);
                self.core.accept(place.tsih, purse, Instant::now());
                self.login = None;
                self.logged_in = Some(LoggedIn { initiator, session, place });
            }
            Err(Refused { status, why }) => {
                self.cause = Some(Cause::LoginRefused);
                // Only an existing target's name is logged as a target. Any other name may be made up by the
                // initiator.
                let claimed = proposal.target.as_ref().map(IscsiName::as_str);
                let target = claimed.filter(|_| why == Why::Array(LoginRefusal::Forbidden));
                let claimed_target = claimed.filter(|_| target.is_none());
                let cause = format!("status {:04x}h: {why}", status.0);
                tracing::warn!(peer = %self.peer, claimed_initiator = %initiator, claimed_target, target, cause, "login refused");
                self.group.array.tell(|| Notice::LoginRefused {
                    peer: self.peer.to_string(),
                    claimed_initiator: initiator.to_string(),
                    target: target.map(str::to_owned),
                    claimed_target: claimed_target.map(str::to_owned),
                    cause: cause.clone(),
                });
                self.core.refuse(status);
            }
        }
    }

    /// A discovery session is told of every target that admits the initiator, a normal session of its own target.
    /// Both are told the portals.
    fn discover(&mut self) {
        let addresses = self.group.addresses(self.local);
        let names = match (self.session(), self.initiator()) {
            (Some(session), _) => vec![session.nexus().port.name.clone()],
            (None, Some(initiator)) => {
                self.group.array.discover(initiator).into_iter().map(String::from).collect()
            }
            (None, None) => Vec::new(),
        };
        let targets: Vec<_> = names.into_iter().map(|name| (name, addresses.clone())).collect();
        self.core.targets(&targets);
    }

    /// Sends as much as the socket takes.
    fn flush(&mut self) -> io::Result<()> {
        while self.core.queued() > 0 {
            let mut slices = [IoSlice::new(&[]); MAX_PIECES];
            let used = self.core.slices(&mut slices);
            match self.stream.try_write_vectored(&slices[..used]) {
                Ok(count) => self.more |= self.core.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Receives into the core, or waits until the socket takes more output; false when the initiator has closed. Both
/// directions are watched at once: an initiator may send data-out and read nothing until its data-out is taken.
async fn exchange(
    stream: &mut TcpStream,
    core: &mut Connection,
    wants: bool,
    waiting: bool,
) -> io::Result<bool> {
    let received = if waiting {
        let interest = if wants { Interest::READABLE | Interest::WRITABLE } else { Interest::WRITABLE };
        if !stream.ready(interest).await?.is_readable() || !wants {
            return Ok(true);
        }
        match stream.try_read(core.space()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            received => received?,
        }
    } else if wants {
        stream.read(core.space()).await?
    } else {
        std::future::pending().await
    };
    core.filled(received);
    Ok(received > 0)
}

fn answer(outcome: Outcome) -> CommandEnd {
    let Outcome { status, sense, data_in, wanted_in, wanted_out, data_out } = outcome;
    CommandEnd { status, sense, data_in, wanted_in, wanted_out, data_out }
}
