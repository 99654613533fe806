//! Access tokens that never expire under you: a middleware for [reqwest] that attaches the token,
//! refreshes it exactly once however many requests want it, keeps it in the operating system's
//! keychain, replays the request, or tells you that the user is logged out.
//!
//! The modules in the order in which a request meets them are the story:
//!
//! 1. `middleware`: is the request ours? Take the current token, keep a clone, attach, send.
//! 2. `origin`: which requests may carry the token; `redirect`: how far it goes from there.
//! 3. `challenge`: what a 401 says.
//! 4. `session`: who is logged in, with which token; log in and out.
//! 5. `refresh`: one refresh for everybody, in an order in which no token is lost.
//! 6. `lock`, `store`, `token`: what it stands on.
//!
//! `login` (a feature) is where the tokens come from: the browser, or another device.
//!
//! [`Session::builder`] is where to begin.
//!
//! # Tracing
//!
//! With the target `reqwest_reauth`, never with a token:
//!
//! | what | level | fields |
//! |---|---|---|
//! | span `refresh` | debug | `service`, `account`, `reason` (`ahead`, `expired`, `refused`) |
//! | `refreshed`, `adopted` (in that span) | debug | `duration_ms`, `waiters` |
//! | `refresh failed` (in that span) | warn | `duration_ms`, `waiters`, `retry_after_ms`, `error` |
//! | `logged in` | info | `service`, `account` |
//! | `logged out` | info | `service`, `account`, `reason` |
//! | `asking for a login` | info | `service`, `account` |
//! | `nobody has logged in` | warn | `service`, `account`, `error` |
//! | `new tokens could not be stored` | warn | `service`, `account`, `error` |
//! | `new tokens are in the journal, not in the store` | warn | `service`, `account`, `error` |
//! | `new tokens stored after all` | info | `service`, `account` |
//! | `refresh withheld` | debug | `service`, `account`, `retry_after_ms` |
//! | how far a refresh has come | trace | `step` (`waiting`, `locked`, `read`, `marked`, `answered`, `journaled`, `saved`, `published`, `unlocked`) |
//!
//! [`Session::metrics`] has the same in numbers, [`Session::events`] as it happens.
//!
//! # Features
//!
//! The feature `keychain`, on by default, brings `KeychainStore`, which sessions use unless they
//! are given another store. The feature `login` brings `BrowserLogin` and `DeviceLogin`.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unnameable_types,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs
)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::print_stdout))]

mod middleware;
pub use middleware::{
    LoginRequired, NoAuth, NotReplayed, ReauthMiddleware, RefreshWithheld, ReplayBody,
    StepUpRequired,
};

mod origin;

mod redirect;
pub use redirect::redirect_policy;

mod challenge;

mod session;
pub use session::{KeepAlive, Metrics, Revocation, Session, SessionBuilder, Status};

mod refresh;

mod lock;

mod endpoint;
pub use endpoint::{ClientSecret, OAuth2Endpoint, RefreshError, ServerMetadata, TokenEndpoint};

mod store;
#[cfg(feature = "keychain")]
pub use store::KeychainStore;
pub use store::{FileStore, MemoryStore, Record, Shared, StoreError, TokenStore};

mod token;
pub use token::{AccessToken, RefreshToken, TokenResponse};

#[cfg(feature = "login")]
mod login;
#[cfg(feature = "login")]
pub use login::{BrowserLogin, DeviceLogin, DeviceProgress, DevicePrompt};

mod event;
pub use event::{Event, Events, LogoutReason};

mod error;
pub use error::Error;

mod sync;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
