//! Several programs of a user at one session, each a process of its own: with its tokens in a
//! file, and in a real keychain.
#![cfg(all(feature = "keychain", target_os = "linux"))]

#[path = "../support/keychain.rs"]
mod keychain;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/worker.rs"]
mod worker;

mod holder;
mod home;

mod clocks;
mod keychain_gone;
mod kills;
mod logins;
mod logouts;
mod many;
mod outage;
mod places;
mod refusals;
mod stops;
