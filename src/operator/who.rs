//! The origin of a verb's request, and the facts about each verb: its names, its object, its route and its role.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use crate::catalog::Role;
use crate::catalog::names::Name;

/// The origin of a request: the audit log has it, and its role decides whether a verb is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// The daemon itself, as for `--demo`; or the program that uses the array as a library.
    Daemon,
    /// A process that has opened the daemon's UNIX socket; only root and the daemon's user can open the socket.
    Socket {
        /// The process's user.
        uid: u32,
        /// The process, if the kernel names it.
        pid: Option<i32>,
    },
    /// The bearer of a token.
    Token {
        /// The token's name.
        name: Name,
        /// The token's role.
        role: Role,
        /// The address of the request.
        peer: SocketAddr,
    },
    /// An initiator, in band. What it may do is decided before, by what it reaches.
    Initiator {
        /// Its node name.
        name: String,
        /// The target of its session.
        target: String,
        /// The command device.
        device: String,
    },
}

impl Who {
    /// The role of this origin.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Self::Daemon | Self::Socket { .. } | Self::Initiator { .. } => Role::Admin,
            Self::Token { role, .. } => *role,
        }
    }
}

/// The fields by which a verb names its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// By the text in this field.
    Text(&'static str),
    /// By the number in this field.
    Number(&'static str),
    /// By more than one field.
    Several,
}

/// The form of a verb's path in the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /v1/NOUNS`: the verb makes an object.
    Collection,
    /// `DELETE /v1/NOUNS/SUBJECT`: the verb ends an object.
    Item,
    /// `POST /v1/NOUNS/SUBJECT/WORD`.
    ItemAction,
    /// `POST /v1/NOUNS/WORD`: no single field names the object.
    CollectionAction,
}

/// The facts about a type of verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The noun, as `volume`.
    pub noun: &'static str,
    /// The word for the action, as `create`.
    pub word: &'static str,
    /// The field that names the object.
    pub subject: Subject,
    /// The form of the path in the admin API.
    pub route: Route,
    /// The role that the verb needs.
    pub role: Role,
}

impl Meta {
    /// The noun in the plural.
    #[must_use]
    pub fn nouns(&self) -> String {
        match self.noun.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{}s", self.noun),
        }
    }
}
