//! The same behaviour at three authorization servers: the mock server, oidc-provider, and Authlib
//! with Flask. `tests/interop/setup` installs the two that are not ours.

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/worker.rs"]
mod worker;

mod behaviour;
mod chromium;
mod process;
mod server;
mod user;

mod authlib;
mod authlib_without_expires_in;
mod authlib_without_rotation;
mod load;
mod logins;
mod mock;
mod oidc_provider;
