//! An OAuth 2 authorization server and a protected API to test clients against.
//!
//! The server does what the literature on refresh tokens recommends: it rotates them
//! (RFC 9700 §4.14.2), detects a spent one being presented again and then revokes the whole
//! family, binds a session to the context of its login if told to, and limits the rate of
//! refreshes if told to. Each of these is a switch on [`Builder`]. On top of that a test can
//! break things on purpose: [faults](Fault) on the next requests, [holds](MockServer::hold)
//! that park requests at the exact point where a race would happen, and controls that expire
//! or revoke tokens from one line to the next.
//!
//! It speaks HTTP/1.1 over real sockets, on a thread of its own with a runtime of its own:
//! [`MockServer::start`] is an ordinary function, and a test may pause or lack tokio's clock
//! without the server noticing. Dropping the [`MockServer`] stops it and frees its port; if a
//! handler panicked, the drop panics too, so that a broken mock never makes a test green.
//!
//! ```
//! use mock_server::{Fault, MockServer, Route};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> reqwest::Result<()> {
//! let server = MockServer::start();
//! let session = server.log_in("alice");
//! let client = reqwest::Client::new();
//!
//! // The API takes the access token, until it is made to expire.
//! let call = || {
//!     let url = server.api_url("/things?x=1");
//!     client.get(url).bearer_auth(&session.access_token).send()
//! };
//! assert_eq!(call().await?.status(), 200);
//! server.expire_access_tokens();
//! assert_eq!(call().await?.status(), 401);
//!
//! // The next refresh is carried out, but its answer is lost on the way.
//! server.on_next(Route::Token, 1, Fault::DropAfter);
//! let form = format!("grant_type=refresh_token&refresh_token={}", session.refresh_token);
//! let refresh = client
//!     .post(server.token_url())
//!     .header("content-type", "application/x-www-form-urlencoded")
//!     .body(form);
//! assert!(refresh.send().await.is_err());
//! assert_eq!(server.counters().refreshes, 1);
//! assert!(!server.is_current(&session.refresh_token));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations, unreachable_pub)]

mod server;
pub use server::MockServer;

mod config;
pub use config::{Builder, ExpiresIn, Metadata, ResponseIss, Reuse};

mod control;

mod route;
pub use route::{Recorded, Route, UnknownRoute};

mod fault;
pub use fault::Fault;

mod hold;
pub use hold::Hold;

mod issued;
pub use issued::Issued;

mod counters;
pub use counters::Counters;

mod history;
pub use history::{Entry, What};

mod family;
pub use family::FamilyId;

mod answer;
mod code;
mod device;
mod grant;
mod lane;
mod page;
mod routes;
mod state;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
