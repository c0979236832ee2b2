//! The operations of the admin API: each route comes with what it takes and answers. So the description of the API
//! ([`super::openapi`]) has what the router has, and nothing else.

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::operator::{Meta, Role, Route, Subject, Verb};

/// Makes the schema of a type.
pub(super) type Describe = fn(&mut SchemaGenerator) -> Schema;

/// What a body is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// JSON of this schema.
    Json(Describe),
    /// Bytes of this media type.
    Bytes(&'static str),
    /// The fields of the verb of this name.
    Verb(&'static str),
    /// Any verb, with its name.
    AnyVerb,
}

/// What an operation takes of the conditions of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conditions {
    /// None.
    No,
    /// `If-Match`.
    Match,
    /// `If-Match`, and `If-None-Match: *`.
    MatchOrNew,
}

/// One method of one path.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// What clients that are made of the description call it: no two have the same, and none changes.
    pub(super) id: String,
    pub(super) method: Method,
    /// With the names of its parameters in braces.
    pub(super) path: String,
    /// What it does, in one line.
    pub(super) says: String,
    /// Who may ask for it.
    pub(super) role: Role,
    pub(super) query: Option<Describe>,
    pub(super) body: Option<Content>,
    pub(super) answer: Content,
    /// What it answers where it does not answer JSON once and for all.
    pub(super) stream: Option<&'static str>,
    pub(super) conditions: Conditions,
    /// Whether the answer has an entity tag.
    pub(super) is_tagged: bool,
    /// Whether it makes an object, and answers with status 201 then.
    pub(super) makes: bool,
    /// Whether it lasts: a client that does not wait for it is answered with its operation.
    pub(super) lasts: bool,
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// As a part of the operation, without a name of its own.
fn inline<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

impl Operation {
    fn new(method: Method, path: impl Into<String>, says: impl Into<String>, answer: Content) -> Self {
        let (path, says): (String, String) = (path.into(), says.into());
        let id = identifier(&method, &path);
        let (conditions, role) = (Conditions::No, Role::Viewer);
        let (query, body, stream, is_tagged, makes, lasts) = Default::default();
        Self {
            id,
            method,
            path,
            says,
            role,
            query,
            body,
            answer,
            stream,
            conditions,
            is_tagged,
            makes,
            lasts,
        }
    }

    /// One that looks.
    pub(super) fn get<T: JsonSchema>(path: &str, says: &str) -> Self {
        Self::new(Method::GET, path, says, Content::Json(schema::<T>))
    }

    /// One that sends a JSON document.
    pub(super) fn post<Q: JsonSchema, T: JsonSchema>(path: &str, says: &str) -> Self {
        let new = Self::new(Method::POST, path, says, Content::Json(schema::<T>));
        Self { body: Some(Content::Json(inline::<Q>)), ..new }
    }

    /// One that makes what is named what it is wanted to be.
    pub(super) fn put<Q: JsonSchema, T: JsonSchema>(path: &str, says: &str) -> Self {
        let new = Self::new(Method::PUT, path, says, Content::Json(inline::<T>));
        let (conditions, is_tagged, makes) = (Conditions::MatchOrNew, true, true);
        Self { body: Some(Content::Json(inline::<Q>)), conditions, is_tagged, makes, ..new }
    }

    /// One that sends bytes.
    pub(super) fn upload<T: JsonSchema>(path: &str, says: &str, kind: &'static str) -> Self {
        let new = Self::new(Method::PUT, path, says, Content::Json(schema::<T>));
        let conditions = Conditions::MatchOrNew;
        Self { body: Some(Content::Bytes(kind)), conditions, makes: true, ..new }
    }

    /// One that is sent bytes.
    pub(super) fn download(path: &str, says: &str, kind: &'static str) -> Self {
        Self::new(Method::GET, path, says, Content::Bytes(kind))
    }

    /// Any verb.
    pub(super) fn any_verb(path: &str, says: &str) -> Self {
        let new = Self::new(Method::POST, path, says, Content::AnyVerb);
        let conditions = Conditions::MatchOrNew;
        Self { body: Some(Content::AnyVerb), conditions, makes: true, lasts: true, ..new }
    }

    /// The verb called `name`, where its [`Meta`] says.
    pub(super) fn verb(name: &'static str, meta: &Meta) -> Self {
        let (nouns, word) = (meta.nouns(), meta.word);
        let field = match meta.subject {
            Subject::Text(field) | Subject::Number(field) => field,
            Subject::Several => "subject",
        };
        let (method, path) = match meta.route {
            Route::Collection => (Method::POST, format!("/v1/{nouns}")),
            Route::CollectionAction => (Method::POST, format!("/v1/{nouns}/{word}")),
            Route::Item => (Method::DELETE, format!("/v1/{nouns}/{{{field}}}")),
            Route::ItemAction => (Method::POST, format!("/v1/{nouns}/{{{field}}}/{word}")),
        };
        let new = Self::new(method, path, format!("{} {word}.", meta.noun), Content::Verb(name));
        let makes = meta.route == Route::Collection;
        let conditions = if makes { Conditions::MatchOrNew } else { Conditions::Match };
        let (role, body, lasts) = (meta.role, Some(Content::Verb(name)), Verb::lasts(name));
        let id = format!("{word}{}", capitalized(meta.noun));
        Self { id, role, body, conditions, is_tagged: true, makes, lasts, ..new }
    }

    /// The verb called `name` at another place.
    pub(super) fn verb_at(self, method: Method, path: &str) -> Self {
        Self { id: identifier(&method, path), method, path: path.to_owned(), ..self }
    }

    /// With another identifier than its method and path make.
    pub(super) fn called(self, id: &str) -> Self {
        Self { id: id.to_owned(), ..self }
    }

    /// For those who have this role.
    pub(super) fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// With a query.
    pub(super) fn query<Q: JsonSchema>(self) -> Self {
        Self { query: Some(inline::<Q>), ..self }
    }

    /// Its answer has an entity tag.
    pub(super) fn tagged(self) -> Self {
        Self { is_tagged: true, ..self }
    }

    /// What takes `If-Match`.
    pub(super) fn conditional(self) -> Self {
        Self { conditions: Conditions::Match, ..self }
    }

    /// What lasts.
    pub(super) fn lasting(self) -> Self {
        Self { lasts: true, ..self }
    }

    /// What is asked for so is answered as a stream of this media type.
    pub(super) fn or_stream(self, kind: &'static str) -> Self {
        Self { stream: Some(kind), ..self }
    }

    /// The names in the path.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
    }
}

/// What `method` of `path` is called: the method, and the nouns of the path. What a parameter names is one of its kind:
/// `getVolumes` and `getVolume`.
fn identifier(method: &Method, path: &str) -> String {
    let mut identifier = method.as_str().to_ascii_lowercase();
    let mut parts = path.split('/').skip(2).peekable();
    while let Some(part) = parts.next() {
        if part.starts_with('{') {
            continue;
        }
        let noun = part.split('.').next().unwrap_or(part);
        let is_one = parts.peek().is_some_and(|next| next.starts_with('{'));
        let noun = if is_one { one_of(noun) } else { noun.to_owned() };
        identifier.push_str(&capitalized(&noun));
    }
    identifier
}

/// The singular of a noun as [`Meta::nouns`] makes plurals.
fn one_of(nouns: &str) -> String {
    match nouns.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => nouns.strip_suffix('s').unwrap_or(nouns).to_owned(),
    }
}

/// `command-device` is `CommandDevice`.
fn capitalized(word: &str) -> String {
    let part = |part: &str| {
        let mut letters = part.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.map_or_else(String::new, |first| format!("{first}{}", letters.as_str()))
    };
    word.split('-').map(part).collect()
}

/// A router, and what it takes.
pub(super) struct Routes<S> {
    router: Router<S>,
    operations: Vec<Operation>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(super) fn new() -> Self {
        Self { router: Router::new(), operations: Vec::new() }
    }

    /// Has `handler` do `operation`.
    pub(super) fn on<H: Handler<T, S>, T: 'static>(self, operation: Operation, handler: H) -> Self {
        let Self { router, mut operations } = self;
        let method = MethodFilter::try_from(operation.method.clone());
        let router = router.route(&operation.path, on(method.expect("a method of HTTP"), handler));
        operations.push(operation);
        Self { router, operations }
    }

    /// These and others.
    pub(super) fn and(self, mut others: Self) -> Self {
        let Self { router, mut operations } = self;
        operations.append(&mut others.operations);
        Self { router: router.merge(others.router), operations }
    }

    pub(super) fn router(self) -> Router<S> {
        self.router
    }

    pub(super) fn operations(self) -> Vec<Operation> {
        self.operations
    }
}
