//! `GET` of the used or changed extents of a volume or snapshot.
//!
//! The document is made as its client takes it: a step of the walk while the text of the step before is on its way. So the
//! daemon keeps the extents of two steps, however long the list is, and no thread while the client takes nothing. The listener
//! closes such a client; when a client has gone, the step at work is the last one.
//!
//! **Half a list is no JSON.** Who backs up what is listed must not take a part for the whole. If the walk fails after the
//! first step, the last element of the list is the error document, and nothing closes the list. A step that has found nothing
//! is a line feed, as a sign of life.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::task::{JoinHandle, spawn_blocking};

use super::api::{self, Api};
use super::follow::Lasting;
use super::places::Place;
use super::routes::{Operation, Routes};
use super::sentence;
use super::types::{ErrorDocument, ExtentsQuery};
use crate::array::error::ArrayError;
use crate::array::show;
use crate::catalog::names::{Name, ObjectName};
use crate::operator::extents::{ExtentsWalk, Step};
use crate::operator::{Cause, Who};
use crate::printable;

/// The path of a volume's used extents.
pub(super) fn routes() -> Routes<Arc<Api>> {
    let operation = Operation::get::<show::Extents>(
        "/v1/volumes/{name}/extents",
        "The extents of a volume or snapshot that are used, or have changed.",
    );
    Routes::new().on(operation.query::<ExtentsQuery>(), extents)
}

async fn extents(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
    query: Result<Query<ExtentsQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(ExtentsQuery { since })) = query else {
        let why = "a list of extents takes no query but since, the name of a snapshot";
        return api::refusal(ArrayError::usage(
            format!("list the extents of {name}"),
            why,
            "see docs/ADMIN-API.md",
        ));
    };
    let asked = asked(&name, since.as_ref());
    let place = match api.walk(&who, &asked) {
        Ok(place) => place,
        Err(error) => return api::busy(error),
    };
    let begun = api::off_the_loop(api, move |operator| {
        let name: ObjectName = api::parse(&asked, &name)?;
        let begin = || {
            let mut used = ExtentsWalk::of(operator.array(), &name, since.as_ref())?;
            let step = used.step()?;
            Ok((used, step))
        };
        let (used, step) = begin().map_err(|cause: Cause| sentence::document(&asked, &cause))?;
        let head = opening(&used.head());
        let walk = Walk { asked, used, has_extents: false, _place: place };
        let Piece { text, rest } = Box::new(walk).piece(Ok(step));
        Ok(Piece { text: [&head[..], &text].concat().into(), rest })
    });
    match begun.await {
        Ok(first) => {
            let mut response = Body::new(List::Made(first)).into_response();
            let kind = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response.extensions_mut().insert(Lasting);
            response
        }
        Err(document) => api::refusal(document),
    }
}

/// What is asked for.
pub(super) fn asked(name: &impl std::fmt::Display, since: Option<&Name>) -> String {
    match since {
        None => format!("list the used extents of {name}"),
        Some(since) => format!("list the extents of {name} that have changed since {since}"),
    }
}

/// The end of a list.
const CLOSE: &[u8] = b"]}";

/// A list up to its first extent.
fn opening(head: &show::Extents) -> Vec<u8> {
    let mut text = api::document(head).into_bytes();
    text.truncate(text.len() - CLOSE.len());
    text
}

/// A walk whose list is under way.
struct Walk {
    asked: String,
    used: ExtentsWalk,
    /// Whether the list has an extent already.
    has_extents: bool,
    /// The place of the request, which the walk keeps even while it works for a client that has gone.
    _place: Place,
}

/// A piece of the list, and the walk if there is more.
struct Piece {
    text: Bytes,
    rest: Option<Box<Walk>>,
}

impl Walk {
    /// Goes on by one step.
    fn go_on(mut self: Box<Self>) -> Piece {
        let step = self.used.step();
        self.piece(step)
    }

    /// The text of a step.
    fn piece(mut self: Box<Self>, step: Result<Step, Cause>) -> Piece {
        let mut text = Vec::new();
        let Step { extents, is_last } = match step {
            Ok(step) => step,
            Err(cause) => {
                let document: ErrorDocument = sentence::document(&self.asked, &cause);
                // A person may look at the answer on a terminal.
                self.element(&mut text, &printable::json(&api::document(&document)));
                return Piece { text: text.into(), rest: None };
            }
        };
        extents.iter().for_each(|extent| self.element(&mut text, &api::document(extent)));
        if is_last {
            text.extend_from_slice(CLOSE);
        } else if text.is_empty() {
            text.push(b'\n');
        }
        Piece { text: text.into(), rest: (!is_last).then_some(self) }
    }

    /// Adds an element of the list to `text`.
    fn element(&mut self, text: &mut Vec<u8>, element: &str) {
        if std::mem::replace(&mut self.has_extents, true) {
            text.push(b',');
        }
        text.extend_from_slice(element.as_bytes());
    }
}

/// A list on its way to its client.
enum List {
    /// This comes next.
    Made(Piece),
    /// The next piece is being made.
    AtWork(JoinHandle<Piece>),
    /// There is nothing more.
    Over,
}

impl hyper::body::Body for List {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Self::AtWork(work) = &mut *self {
            // There is no piece if the runtime ends. Nothing closes the list then.
            *self = ready!(Pin::new(work).poll(context)).map_or(Self::Over, Self::Made);
        }
        let Self::Made(Piece { text, rest }) = std::mem::replace(&mut *self, Self::Over) else {
            return Poll::Ready(None);
        };
        if let Some(walk) = rest {
            *self = Self::AtWork(spawn_blocking(move || walk.go_on()));
        }
        Poll::Ready(Some(Ok(Frame::data(text))))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::admin::places::{Holder, Places};
    use crate::array::{Array, Options};
    use crate::catalog::StoreKind;
    use crate::operator::Act;
    use crate::operator::verbs::volume::Create;

    /// A walk over an empty volume `db`, and the places of which it has the only one.
    fn walk() -> (tempfile::TempDir, Box<Walk>, Places) {
        let temporary = tempfile::tempdir().unwrap();
        let array = Array::open(&temporary.path().join("data"), &Options::default()).unwrap();
        let name: Name = "db".parse().unwrap();
        Create { store: StoreKind::Mem, ..Create::new(name.clone(), 1 << 20) }.act(&array).unwrap();
        let used = ExtentsWalk::of(&array, &name.clone().into(), None).unwrap();
        let places = Places::new(1, "lists");
        let place = places.take(&Holder::Socket).unwrap();
        (
            temporary,
            Box::new(Walk { asked: "list".to_owned(), used, has_extents: false, _place: place }),
            places,
        )
    }

    fn step(offsets: &[u64], is_last: bool) -> Result<Step, Cause> {
        let extent = |offset: &u64| serde_json::json!({ "offset": offset, "length": 65536 });
        let extents = offsets.iter().map(|offset| serde_json::from_value(extent(offset)).unwrap());
        Ok(Step { extents: extents.collect(), is_last })
    }

    #[test]
    fn the_pieces_are_one_document_and_a_failure_leaves_it_open() {
        let (_temporary, walk, _) = walk();
        let mut text = opening(&walk.used.head());
        let mut next = walk;
        for (offsets, piece) in [
            (&[][..], "\n"),
            (&[0, 131_072], r#"{"offset":0,"length":65536},{"offset":131072,"length":65536}"#),
            (&[], "\n"),
            (&[262_144], r#",{"offset":262144,"length":65536}"#),
        ] {
            let made = next.piece(step(offsets, false));
            assert_eq!(made.text, piece);
            text.extend_from_slice(&made.text);
            next = made.rest.unwrap();
        }
        let (open, whole) = (text.clone(), [&text[..], CLOSE].concat());
        let document: show::Extents = serde_json::from_slice(&whole).unwrap();
        assert_eq!((document.volume.as_str(), document.size, document.extents.len()), ("db", 1 << 20, 3));
        let failed = next.piece(Err(Cause::Stopping));
        assert!(failed.rest.is_none());
        let text = [&open[..], &failed.text].concat();
        assert!(
            String::from_utf8_lossy(&text)
                .contains(r#"},{"error":{"asked":"list","why":"the daemon is stopping""#)
        );
        serde_json::from_slice::<serde_json::Value>(&text).unwrap_err();
        serde_json::from_slice::<serde_json::Value>(&[&text[..], CLOSE].concat()).unwrap();
    }

    #[test]
    fn a_list_is_made_as_it_is_taken_and_its_place_is_free_when_it_is_over_or_dropped() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let is_free = |places: &Places| places.take(&Holder::Socket).is_ok();
        let (_temporary, first, places) = walk();
        let mut list = List::Made(first.piece(step(&[], false)));
        runtime.block_on(async {
            assert!(!is_free(&places));
            let mut text = Vec::new();
            while let Some(frame) = list.frame().await {
                text.extend_from_slice(&frame.unwrap().into_data().unwrap());
            }
            assert_eq!(text, b"\n]}");
        });
        assert!(is_free(&places), "the list is over");
        let (_temporary, first, places) = walk();
        drop(List::Made(first.piece(step(&[], false))));
        assert!(is_free(&places), "nobody takes it");
    }
}
