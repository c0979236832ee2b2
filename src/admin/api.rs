//! The daemon's end of the admin API: HTTP/1.1 and JSON on a UNIX socket or a TCP port.
//!
//! Every request may wait for a disk, so it runs on a thread for blocking work. docs/ADMIN-API.md lists the paths.
//! The paths of verbs follow from the list of verbs ([`Verb::ALL`]).

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::certificate::ServerCertificate;
use super::lasting::{OperationDocument, PREFERENCE_APPLIED, RESPOND_ASYNC, waits};
use super::places::{Holder, Place, Places};
use super::routes::{Operation, Routes};
use super::tree::Tree;
use super::types::{CertificateDocument, ErrorDocument, ListQuery, WaitQuery};
use super::{advice, etag, sentence};
use crate::array::Array;
use crate::array::error::{ArrayError, Kind as Code};
use crate::array::show::{self, Labelled};
use crate::catalog::Revision;
use crate::catalog::names::{IscsiName, Name, node_name};
use crate::catalog::selector::Selector;
use crate::catalog::transaction::Key;
use crate::operator::about::About;
use crate::operator::apply::MAX_FILE;
use crate::operator::cause::State as PairState;
use crate::operator::operations::OperationId;
use crate::operator::verbs::lun::Unmap;
use crate::operator::{
    Act, Cause, Expected, Made, Meta, ObjectKind, Operator, Outcome, Put, Role, Route, Unread, Verb, Who,
    condition, desired, view,
};
use crate::printable;

/// The longest body of a request, in bytes, except for [`APPLY`].
pub(super) const MAX_BODY: usize = 128 << 10;

/// The most operations whose requests have been answered at their begin. Each has a thread.
const MAX_BEGUN: usize = 64;

/// The most imports and exports of volumes at an entrance at once. Each keeps a few MiB in memory.
pub(super) const MAX_TRANSFERS: usize = 4;

/// The most lists of used extents at an entrance at once.
pub(super) const MAX_WALKS: usize = 8;

/// The longest duration of one wait request.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// What a target shows at a LUN.
const LUN: &str = "/v1/luns/{target}/{lun}";

/// The path that takes a whole file.
pub(super) const APPLY: &str = "/v1/apply";

/// The longest body of a request for `path`, in bytes.
pub(super) fn longest_body(path: &str) -> usize {
    if path == APPLY { MAX_FILE } else { MAX_BODY }
}

/// The state behind the routes.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) operator: Arc<Operator>,
    portals: Vec<String>,
    begun: Places,
    /// The certificate of the admin port, if there is a port.
    shown: Arc<ServerCertificate>,
    /// Makes the description of all of it ([`super::openapi`]).
    description: fn() -> &'static str,
    transfers: Places,
    walks: Places,
}

impl Api {
    /// The API of `operator`, whose array is served at `portals`.
    pub(super) fn new(
        operator: Arc<Operator>,
        portals: Vec<String>,
        shown: Arc<ServerCertificate>,
        description: fn() -> &'static str,
    ) -> Self {
        let begun = Places::new(MAX_BEGUN, "operations have begun that nobody waits for");
        let transfers = Places::new(MAX_TRANSFERS, "imports and exports of volumes are under way");
        let walks = Places::new(MAX_WALKS, "lists of used extents are under way");
        Self { operator, portals, begun, shown, description, transfers, walks }
    }

    /// A place for an operation of `who` whose request is answered before its end.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn begun(&self, who: &Who) -> Result<Place, ArrayError> {
        self.begun.take(&Holder::from(who)).map_err(|why| no_place("carry out the request", why))
    }

    /// A place for an import or export of a volume, for `who`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn transfer(&self, who: &Who, asked: &str) -> Result<Place, ArrayError> {
        self.transfers.take(&Holder::from(who)).map_err(|why| no_place(asked, why))
    }

    /// A place for a list of used extents, for `who`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn walk(&self, who: &Who, asked: &str) -> Result<Place, ArrayError> {
        self.walks.take(&Holder::from(who)).map_err(|why| no_place(asked, why))
    }
}

type Shared = State<Arc<Api>>;

/// The filter by labels in the query of a list.
type Labels = Result<Query<ListQuery>, QueryRejection>;

/// The asker of a request, from [`super::rights`].
type Asker = Extension<Who>;

/// What the API takes, but for the file of the array, the contents and extents of volumes, the operations and the journal.
pub(super) fn routes() -> Routes<Arc<Api>> {
    let looks = Routes::new()
        .on(Operation::get::<show::Status>("/v1/status", "The whole array.").tagged(), status)
        .on(Operation::get::<Tree>("/v1/tree", "Who reaches what.").tagged(), tree)
        .on(Operation::get::<Value>("/v1/openapi.json", "This description."), description)
        .on(
            Operation::get::<CertificateDocument>("/v1/certificate", "The certificate of the admin port."),
            certificate,
        );
    let looks = looks.and(objects()).and(hosts()).and(tokens());
    let whole = looks.on(
        Operation::any_verb("/v1/verbs", "Any verb as a whole. The role is that of the verb.")
            .called("doVerb"),
        any_verb,
    );
    Verb::ALL.iter().fold(whole, |routes, (name, meta)| {
        let operation = Operation::verb(name, meta);
        let on_all = move |State(api): Shared, who: Asker, headers: HeaderMap, body: Bytes| {
            verb(api, who, (name, meta), None, headers, body)
        };
        let on_one =
            move |State(api): Shared,
                  who: Asker,
                  Path(subject): Path<String>,
                  headers: HeaderMap,
                  body: Bytes| { verb(api, who, (name, meta), Some(subject), headers, body) };
        match meta.route {
            Route::Collection | Route::CollectionAction => routes.on(operation, on_all),
            Route::Item | Route::ItemAction => routes.on(operation, on_one),
        }
    })
}

/// The router of `routes`, and of `more`.
pub(super) fn router(api: Arc<Api>, routes: Routes<Arc<Api>>, more: Router) -> Router {
    routes
        .router()
        .with_state(api)
        .merge(more)
        .fallback(async || refusal(unknown(Code::NotFound, "there is no such path")))
        .method_not_allowed_fallback(async || {
            // The router adds the methods that the path takes (RFC 9110 15.5.6).
            let why = "that path does not take this method";
            refusal_as(StatusCode::METHOD_NOT_ALLOWED, unknown(Code::Usage, why))
        })
}

/// The routes of a TCP port.
pub(super) fn on_a_port(routes: Router) -> Router {
    routes.layer(middleware::from_fn(keep_browsers_out))
}

/// Does the verb called `name`, with its path and body.
async fn verb(
    api: Arc<Api>,
    who: Asker,
    (name, meta): (&'static str, &'static Meta),
    subject: Option<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let subject = subject.map(|subject| whole(meta.noun, subject));
    match Verb::read(name, subject.as_deref(), &body) {
        Ok(verb) => perform(api, who, verb, &headers).await,
        Err(Unread::Body(why)) => refuse_body(why),
        Err(Unread::Subject(why)) => {
            refusal(unnamed(&sentence::in_general(meta), &subject.unwrap_or_default(), why))
        }
    }
}

/// Does the verb in a body.
async fn any_verb(State(api): Shared, who: Asker, headers: HeaderMap, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(verb) => perform(api, who, verb, &headers).await,
        Err(error) => refuse_body(error.to_string()),
    }
}

/// Does a verb. One that lasts is only begun for a client that does not wait for it.
async fn perform(api: Arc<Api>, Extension(who): Asker, verb: Verb, headers: &HeaderMap) -> Response {
    let expected = match etag::expected(headers, verb.meta().route == Route::Collection) {
        Ok(expected) => expected,
        Err(error) => return refusal(error),
    };
    if let Some(about) = verb.lasting().filter(|_| !waits(headers)) {
        return begin(api, who, verb, about, expected).await;
    }
    at_work(api, move |operator| Ok(operator.perform(&who, verb, expected.as_ref())?)).await
}

/// Begins a verb that lasts, and answers with its operation.
async fn begin(api: Arc<Api>, who: Who, verb: Verb, about: About, expected: Option<Expected>) -> Response {
    let place = match api.begun(&who) {
        Ok(place) => place,
        Err(error) => return busy(error),
    };
    let apart = Arc::clone(&api.operator);
    // In one step: a client that goes meanwhile leaves no operation that nobody does.
    let begun = off_the_loop(api, move |operator| {
        let begun = operator.begin(&who, verb, about, expected)?;
        let id = begun.id();
        let shown = operator.operations().show(id);
        apart.go_on_apart(begun, place)?;
        Ok((id, shown.map(OperationDocument::from)))
    });
    let (id, shown) = match begun.await {
        Ok(begun) => begun,
        Err(document) => return refusal(document),
    };
    accepted(id, shown.as_ref())
}

/// Answers who does not wait with the operation, and with the path where it is looked after.
pub(super) fn accepted(id: OperationId, shown: Option<&OperationDocument>) -> Response {
    let location = format!("/v1/operations/{id}");
    let headers = [(header::LOCATION, location.as_str()), (PREFERENCE_APPLIED, RESPOND_ASYNC)];
    (headers, json(StatusCode::ACCEPTED, &document(&shown))).into_response()
}

/// A kind of objects that have a place in the API each: how the path names one, and what is seen of it.
struct Kind<T> {
    kind: ObjectKind,
    view: fn(&Array, &str) -> Result<T, ErrorDocument>,
}

impl<T> Clone for Kind<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Kind<T> {}

/// A [`Kind`] whose objects are seen by `$named`.
macro_rules! kind {
    ($kind:ident, $named:path) => {
        Kind {
            kind: ObjectKind::$kind,
            view: |array, name| seen(ObjectKind::$kind, name, |name| $named(array, name)),
        }
    };
}

mod snapshots;

const VOLUME: Kind<show::Volume> = kind!(Volume, view::volume::named);
const PAIR: Kind<show::Pair> = kind!(Pair, view::pair::named);
const GROUP: Kind<show::Group> = kind!(Group, view::group::named);
const CARTRIDGE: Kind<show::Cartridge> = kind!(Cartridge, view::cartridge::named);
const DRIVE: Kind<show::Drive> = kind!(Drive, view::drive::named);
const COMMAND_DEVICE: Kind<show::CommandDevice> = kind!(CommandDevice, view::command_device::named);
const TARGET: Kind<show::Target> = kind!(Target, view::target::named);
const TOKEN: Kind<show::Token> = kind!(Token, view::token::named);

/// What `named` sees of the object that a path calls `subject`.
fn seen<N: FromStr<Err: ToString> + Display, T>(
    kind: ObjectKind,
    subject: &str,
    named: impl FnOnce(&N) -> Result<T, Cause>,
) -> Result<T, ErrorDocument> {
    let noun = kind.noun();
    let name = parse(&format!("show a {noun}"), subject)?;
    named(&name).map_err(|cause| sentence::document(&format!("show {noun} {name}"), &cause))
}

impl<T: Serialize + Send + 'static> Kind<T> {
    /// One object. Its revision is looked up first: so it may be older than what is seen, and is never newer, and who has
    /// changed it meanwhile is not overwritten.
    fn seen(self, operator: &Operator, subject: &str) -> Result<(Option<Revision>, T), ErrorDocument> {
        let key = condition::key(self.kind, subject);
        let revision = key.and_then(|key| operator.array().catalog().revision_of(&key));
        Ok((revision, (self.view)(operator.array(), subject)?))
    }

    async fn look(self, api: Arc<Api>, subject: String) -> Response {
        let subject = whole(self.kind.noun(), subject);
        at_work(api, move |operator| {
            let (revision, object) = self.seen(operator, &subject)?;
            Ok(Answered { revision, ..document(&object).into() })
        })
        .await
    }

    async fn put(
        self,
        api: Arc<Api>,
        who: Who,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Response {
        let subject = whole(self.kind.noun(), subject);
        let put = Put::read(self.kind, &subject, &body);
        let put = put.map_err(|unread| (format!("put a {}", self.kind.noun()), subject.clone(), unread));
        put_by(api, who, put, &headers, move |array| (self.view)(array, &subject).ok()).await
    }
}

/// Makes an object what was `read`, and answers with what `view` sees of it; `None`: it is not there any more.
async fn put_by<T: Serialize>(
    api: Arc<Api>,
    who: Who,
    read: Result<Put, (String, String, Unread)>,
    headers: &HeaderMap,
    view: impl FnOnce(&Array) -> Option<T> + Send + 'static,
) -> Response {
    let put = match read {
        Ok(put) => put,
        Err((_, _, Unread::Body(why))) => return refuse_body(why),
        Err((asked, subject, Unread::Subject(why))) => return refusal(unnamed(&asked, &subject, why)),
    };
    let expected = match etag::expected(headers, true) {
        Ok(expected) => expected,
        Err(error) => return refusal(error),
    };
    at_work(api, move |operator| {
        let outcome = operator.put(&who, &put, expected.as_ref());
        let outcome = outcome.map_err(|refused| advice::unput(&put, refused))?;
        let object = view(operator.array()).ok_or_else(|| gone(&put))?;
        let (revision, is_new) = (outcome.revision, outcome.is_new);
        // The tag is that of what this request has made, whoever changes the object meanwhile.
        Ok(Answered { revision, is_new, text: Made { object, created: is_new }.text() })
    })
    .await
}

/// Nothing can be shown of an object that was made what was `put`.
fn gone(put: &Put) -> ArrayError {
    let why = "it was made what it is to be, and somebody else has removed it since";
    ArrayError::refused(format!("show {}", put.about()), why, "repeat the request if it is to be there")
}

impl<T: Serialize + Labelled + JsonSchema + Send + 'static> Kind<T> {
    /// The list of the objects, which `all` makes, and one object: seen, and made what it is to be, which is a `Q`. The path
    /// names the object by `field`.
    fn routes<Q: JsonSchema>(self, field: &str, all: fn(&Array) -> Vec<T>) -> Routes<Arc<Api>> {
        let noun = self.kind.noun();
        let (list_path, path) = (format!("/v1/{noun}s"), format!("/v1/{noun}s/{{{field}}}"));
        let look = Operation::get::<T>(&path, &format!("A {noun}.")).tagged();
        let put = Operation::put::<Q, Made<T>>(&path, &format!("Make a {noun} what it is to be."));
        Routes::new()
            .on(
                Operation::get::<Vec<T>>(&list_path, &format!("The {noun}s.")).query::<ListQuery>().tagged(),
                async move |State(api): Shared, query: Labels| list(api, query, noun, all).await,
            )
            .on(look, async move |State(api): Shared, Path(subject): Path<String>| {
                self.look(api, subject).await
            })
            .on(
                put.role(Role::Admin),
                async move |State(api): Shared,
                            Extension(who): Asker,
                            Path(subject): Path<String>,
                            headers: HeaderMap,
                            body: Bytes| self.put(api, who, subject, headers, body).await,
            )
    }
}

/// The objects that have labels.
fn objects() -> Routes<Arc<Api>> {
    let wait_for_pair =
        Operation::get::<show::Pair>("/v1/pairs/{name}/wait", "Wait until a pair is in a state.");
    VOLUME
        .routes::<desired::Volume>("name", view::volume::all)
        .and(PAIR.routes::<desired::Pair>("name", view::pair::all))
        .on(wait_for_pair.called("waitForPair").query::<WaitQuery>(), wait)
        .and(GROUP.routes::<desired::Group>("name", view::group::all))
        .and(snapshots::routes())
        .and(CARTRIDGE.routes::<desired::Cartridge>("barcode", view::cartridge::all))
        .and(DRIVE.routes::<desired::Drive>("name", view::drive::all))
        .and(COMMAND_DEVICE.routes::<desired::CommandDevice>("name", view::command_device::all))
        .and(TARGET.routes::<desired::Target>("iqn", view::target::all))
}

fn hosts() -> Routes<Arc<Api>> {
    Routes::new()
        .on(
            Operation::get::<Vec<show::Lun>>("/v1/luns", "What targets show.").tagged(),
            async |State(api): Shared| look_all(api, |array| Ok(view::lun::all(array))).await,
        )
        .on(Operation::get::<Vec<show::Lun>>(LUN, "What a target shows at a LUN.").tagged(), lun)
        .on(
            Operation::put::<desired::Lun, Made<show::Lun>>(LUN, "Make an entry at a LUN what it is to be.")
                .role(Role::Admin),
            put_lun,
        )
        .on(Operation::verb("lun.unmap", &<Unmap as Act>::META).verb_at(Method::DELETE, LUN), unmap)
        .on(
            Operation::get::<Vec<show::Session>>("/v1/sessions", "The sessions."),
            async |State(api): Shared| look(api, |array| Ok(array.session_list())).await,
        )
        .on(
            Operation::get::<show::Session>("/v1/sessions/{id}", "A session."),
            async |State(api): Shared, Path(id): Path<String>| {
                look(api, move |array| {
                    let id = parse("show a session", &id)?;
                    let shown = view::session::numbered(array, id);
                    shown.map_err(|cause| sentence::document(&format!("show session {id}"), &cause))
                })
                .await
            },
        )
        .on(
            Operation::get::<Vec<show::Copy>>("/v1/copies", "The third-party copies."),
            async |State(api): Shared| look(api, |array| Ok(array.copies())).await,
        )
        .on(
            Operation::get::<show::Copy>("/v1/copies/{id}", "A third-party copy."),
            async |State(api): Shared, Path(id): Path<String>| {
                look(api, move |array| Ok(array.copy(parse("show a copy", &id)?)?)).await
            },
        )
}

/// The tokens, for whoever may make some.
fn tokens() -> Routes<Arc<Api>> {
    let refused = || refusal_as(StatusCode::FORBIDDEN, sentence::not_allowed("list the tokens", Role::Admin));
    Routes::new()
        .on(
            Operation::get::<Vec<show::Token>>("/v1/tokens", "The tokens.").role(Role::Admin).tagged(),
            async move |State(api): Shared, Extension(who): Asker| match who.role() {
                Role::Admin => look_all(api, |array| Ok(view::token::all(array))).await,
                _ => refused(),
            },
        )
        .on(
            Operation::get::<show::Token>("/v1/tokens/{name}", "A token.").role(Role::Admin).tagged(),
            async move |State(api): Shared, Extension(who): Asker, Path(subject): Path<String>| match who
                .role()
            {
                Role::Admin => TOKEN.look(api, subject).await,
                _ => refused(),
            },
        )
}

/// The name of an object of the kind `noun` in a path. That of a target may be given short there, too.
fn whole(noun: &str, subject: String) -> String {
    match noun == ObjectKind::Target.noun() {
        true => node_name(&subject).map_or(subject, String::from),
        false => subject,
    }
}

/// What the path of a LUN names.
fn place(target: &str, lun: &str) -> Result<(IscsiName, u16), ArrayError> {
    let target = whole(ObjectKind::Target.noun(), target.to_owned());
    Ok((parse("name a LUN", &target)?, parse("name a LUN", lun)?))
}

/// What a target shows at a LUN. It has the revision of the target.
async fn lun(State(api): Shared, Path((target, lun)): Path<(String, String)>) -> Response {
    at_work(api, move |operator| {
        let (target, lun) = place(&target, &lun)?;
        let revision = operator.array().catalog().revision_of(&Key::Target(target.clone()));
        let is_there = |entry: &show::Lun| (entry.target.as_str(), entry.lun) == (target.as_str(), lun);
        let entries: Vec<show::Lun> = view::lun::all(operator.array()).into_iter().filter(is_there).collect();
        if entries.is_empty() {
            let why = format!("{target} has no LUN {lun}");
            let asked = format!("show LUN {lun} of {target}");
            return Err(ArrayError::new(Code::NotFound, asked, why, "see 'cleave lun list'").into());
        }
        Ok(Answered { revision, ..document(&entries).into() })
    })
    .await
}

async fn put_lun(
    State(api): Shared,
    Extension(who): Asker,
    Path((target, lun)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (target, lun) = match place(&target, &lun) {
        Ok(place) => place,
        Err(error) => return refusal(error),
    };
    let put = Put::read_lun(&target, lun, &body);
    let wanted = put.as_ref().ok().cloned();
    let put = put.map_err(|unread| ("put a LUN".to_owned(), target.to_string(), unread));
    put_by(api, who, put, &headers, move |array| {
        let entry = wanted.and_then(|put| put.lun(&array.catalog()))?;
        view::lun::named(array, &target, &entry)
    })
    .await
}

/// Unmaps what the path names: the verb `lun.unmap`.
async fn unmap(
    State(api): Shared,
    who: Asker,
    Path((target, lun)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (target, lun) = match place(&target, &lun) {
        Ok(place) => place,
        Err(error) => return refusal(error),
    };
    let body = if body.trim_ascii().is_empty() { Bytes::from_static(b"{}") } else { body };
    match serde_json::from_slice::<UnmapBody>(&body) {
        Ok(UnmapBody { initiator, all_entries }) => {
            perform(api, who, Unmap { target, lun, initiator, all_entries }.into(), &headers).await
        }
        Err(error) => refuse_body(error.to_string()),
    }
}

/// The body of a request that unmaps what its path names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnmapBody {
    #[serde(default)]
    initiator: Option<IscsiName>,
    #[serde(default)]
    all_entries: bool,
}

/// Refuses requests that a web page makes somebody's browser send to a port of his machine. Every client of the API
/// controls the array, and a browser reaches every port that its user reaches.
async fn keep_browsers_out(request: Request, next: Next) -> Response {
    if is_from_page(request.method(), request.headers()) {
        let why = "the request may come from a web page";
        let remedy = "use 'cleave', or curl with the daemon's IP address in the URL and 'content-type: application/json'";
        return refusal(ArrayError::new(Code::Refused, "use the admin API", why, remedy));
    }
    next.run(request).await
}

/// Requests of a page carry its origin, or how they were made. A page's host name may have been made to resolve to
/// this machine, which gives the page the same origin; then Host has that name. Requests of control commands have an
/// address, `localhost` or their own word in Host. A request that a page may send without asking first is not JSON.
fn is_from_page(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map_or("", |value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST);
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let known = ["", "cleave", "localhost"].contains(&name)
        || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim();
    let json = *method != Method::POST || kind.eq_ignore_ascii_case("application/json");
    !known || !json || headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site")
}

async fn description(State(api): Shared) -> Response {
    json(StatusCode::OK, (api.description)())
}

/// The certificate of the admin port. It is made if there is none yet, so that a token can have its fingerprint.
async fn certificate(State(api): Shared) -> Response {
    let shown = Arc::clone(&api.shown);
    look(api, move |_| Ok(CertificateDocument { sha256: shown.identity()?.fingerprint.to_string() })).await
}

/// A list of objects, filtered by the labels in the query.
async fn list<T: Serialize + Labelled>(
    api: Arc<Api>,
    query: Labels,
    noun: &'static str,
    view: impl FnOnce(&Array) -> Vec<T> + Send + 'static,
) -> Response {
    let Ok(Query(ListQuery { label })) = query else {
        let why = "a list takes no query but label";
        return refusal(ArrayError::usage(format!("list the {noun}s"), why, "see docs/ADMIN-API.md"));
    };
    list_of(api, label, noun, view).await
}

/// A list of objects, filtered by `label`.
async fn list_of<T: Serialize + Labelled>(
    api: Arc<Api>,
    label: Option<String>,
    noun: &'static str,
    view: impl FnOnce(&Array) -> Vec<T> + Send + 'static,
) -> Response {
    let asked = || format!("list the {noun}s");
    let selector = match label.map(|label| label.parse::<Selector>()).transpose() {
        Ok(selector) => selector,
        Err(why) => {
            let remedy = "write the filter as env=test,tier!=gold,owner";
            return refusal(ArrayError::usage(asked(), why, remedy));
        }
    };
    look_all(api, move |array| {
        let mut objects = view(array);
        if let Some(selector) = &selector {
            objects.retain(|object| selector.selects(object.labels()));
        }
        Ok(objects)
    })
    .await
}

async fn status(State(api): Shared) -> Response {
    let portals = api.portals.clone();
    look_all(api, move |array| Ok(view::status(array, portals))).await
}

async fn tree(State(api): Shared) -> Response {
    look_all(api, |array| Ok(Tree::of(&view::status(array, Vec::new())))).await
}

async fn wait(
    State(api): Shared,
    Path(name): Path<String>,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(WaitQuery { state, timeout_ms })) = query else {
        let why = "the query needs state and timeout_ms";
        return refusal(ArrayError::usage("wait for a pair", why, "see docs/ADMIN-API.md"));
    };
    let patience = Duration::from_millis(timeout_ms).min(MAX_WAIT);
    look(api, move |array| {
        let name: Name = parse("wait for a pair", &name)?;
        let asked = format!("wait until pair {name} is in {state}");
        let Some(wanted) = PairState::ALL.into_iter().find(|wanted| wanted.word() == state) else {
            let words: Vec<&str> = PairState::ALL.iter().map(|state| state.word()).collect();
            let remedy = format!("name one of {}", words.join(", "));
            return Err(ArrayError::usage(asked, "there is no such state", remedy).into());
        };
        let there = view::pair::wait(array, &name, wanted, patience);
        there.map_err(|cause| sentence::document(&asked, &cause))
    })
    .await
}

fn unknown(code: Code, why: &str) -> ArrayError {
    ArrayError::new(code, "use the admin API", why, "see docs/ADMIN-API.md for the paths")
}

/// A parameter in the path.
pub(super) fn parse<T: FromStr<Err: ToString>>(asked: &str, text: &str) -> Result<T, ArrayError> {
    text.parse().map_err(|error: T::Err| unnamed(asked, text, error.to_string()))
}

/// The refusal of a path whose parameter is no name or number.
fn unnamed(asked: &str, text: &str, why: String) -> ArrayError {
    // The error of a name repeats the name; the error of a number does not.
    let shown = text.escape_default().to_string();
    match why.contains(&shown) {
        true => ArrayError::usage(asked, why, "correct the name"),
        false => ArrayError::usage(asked, format!("'{shown}' is no number: {why}"), "correct the number"),
    }
}

/// Answers with the result of `view`.
async fn look<T: Serialize>(
    api: Arc<Api>,
    view: impl FnOnce(&Arc<Array>) -> Result<T, ErrorDocument> + Send + 'static,
) -> Response {
    view_of(api, move |operator| view(operator.array())).await
}

/// Answers with what `view` sees, of the array or of what is done with it.
pub(super) async fn view_of<T: Serialize>(
    api: Arc<Api>,
    view: impl FnOnce(&Operator) -> Result<T, ErrorDocument> + Send + 'static,
) -> Response {
    at_work(api, move |operator| Ok(document(&view(operator)?))).await
}

/// Answers with what `view` sees of all objects, and with the revision that the catalog had before.
async fn look_all<T: Serialize>(
    api: Arc<Api>,
    view: impl FnOnce(&Arc<Array>) -> Result<T, ErrorDocument> + Send + 'static,
) -> Response {
    at_work(api, move |operator| {
        let revision = Some(operator.array().catalog().revision);
        let text = document(&view(operator.array())?);
        Ok(Answered { revision, ..text.into() })
    })
    .await
}

pub(super) fn document(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a document has texts for keys")
}

/// A document, and what the head of the answer says of it.
pub(super) struct Answered {
    pub(super) text: String,
    /// The revision of what it shows, if that is known.
    pub(super) revision: Option<Revision>,
    /// Whether it shows what has just been made.
    pub(super) is_new: bool,
}

impl From<String> for Answered {
    fn from(text: String) -> Self {
        Self { text, revision: None, is_new: false }
    }
}

impl From<Outcome<String>> for Answered {
    fn from(Outcome { answer, is_new, revision }: Outcome<String>) -> Self {
        Self { text: answer, revision, is_new }
    }
}

/// Answers with the JSON that `work` makes, where it may block.
pub(super) async fn at_work<A: Into<Answered> + Send + 'static>(
    api: Arc<Api>,
    work: impl FnOnce(&Operator) -> Result<A, ErrorDocument> + Send + 'static,
) -> Response {
    match off_the_loop(api, work).await {
        Ok(answered) => {
            let Answered { text, revision, is_new } = answered.into();
            let mut response = json(if is_new { StatusCode::CREATED } else { StatusCode::OK }, &text);
            if let Some(revision) = revision {
                response.headers_mut().insert(header::ETAG, etag::tag(revision));
            }
            response
        }
        Err(document) => refusal(document),
    }
}

/// Does `work` on a thread that may block. The request has its place from [`super::entrance`].
pub(super) async fn off_the_loop<T: Send + 'static>(
    api: Arc<Api>,
    work: impl FnOnce(&Operator) -> Result<T, ErrorDocument> + Send + 'static,
) -> Result<T, ErrorDocument> {
    let work = move || work(&api.operator);
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(defect(&error).into()))
}

/// Answers with the result of `read`, on a thread that may block.
pub(super) async fn answer<T: Serialize + Send + 'static>(
    read: impl FnOnce() -> Result<T, ArrayError> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(found)) => json(StatusCode::OK, &document(&found)),
        Ok(Err(error)) => refusal(error),
        Err(error) => refusal(defect(&error)),
    }
}

fn no_place(asked: &str, why: String) -> ArrayError {
    ArrayError::refused(asked, why, "repeat it when one of them has ended")
}

pub(super) fn defect(error: &tokio::task::JoinError) -> ArrayError {
    let why = format!("a defect in cleave ended it: {error}");
    ArrayError::new(Code::Failed, "carry out the request", why, "report it with the daemon's log")
}

/// The refusal of a request body.
pub(super) fn refuse_body(why: String) -> Response {
    refusal(wrong_body(why))
}

/// The error of a request body.
pub(super) fn wrong_body(why: String) -> ArrayError {
    ArrayError::usage("read the request body", why, "see docs/ADMIN-API.md")
}

/// The refusal of a request.
pub(super) fn refusal(document: impl Into<ErrorDocument>) -> Response {
    let document = document.into();
    let status = match document.error.code {
        _ if document.error.is_forbidden() => StatusCode::FORBIDDEN,
        _ if document.error.is_stale() => StatusCode::PRECONDITION_FAILED,
        Code::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Usage => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Refused => StatusCode::CONFLICT,
        Code::TimedOut => StatusCode::REQUEST_TIMEOUT,
        Code::Unreachable => StatusCode::BAD_GATEWAY,
    };
    refusal_as(status, document)
}

/// The refusal of a request for want of a place. It may be repeated soon (RFC 9110 15.6.4).
pub(super) fn busy(document: impl Into<ErrorDocument>) -> Response {
    let mut response = refusal_as(StatusCode::SERVICE_UNAVAILABLE, document);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A refusal with a status of its own.
pub(super) fn refusal_as(status: StatusCode, document: impl Into<ErrorDocument>) -> Response {
    let document: ErrorDocument = document.into();
    json(status, &serde_json::to_string(&document).expect("a document has texts for keys"))
}

pub(super) fn json(status: StatusCode, text: &str) -> Response {
    // A person may look at the answer on a terminal.
    let text = printable::json(text).into_owned();
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
