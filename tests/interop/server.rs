//! What the suite asks of a server: logins without a browser, controls, and numbers.

use mock_server::MockServer;
use serde::Deserialize;
use serde_json::Value;

/// An authorization server with an API at the same origin, which knows the client
/// [`CLIENT_ID`] with [`CLIENT_SECRET`].
pub trait Server {
    fn origin(&self) -> String;
    fn token_url(&self) -> String;
    fn revocation_url(&self) -> String;
    /// A token response for a person who has just logged in.
    async fn log_in(&self) -> Value;
    async fn expire_access_tokens(&self);
    /// Ends all grants, as a person who withdraws them does.
    async fn revoke(&self);
    async fn state(&self) -> State;

    fn api_url(&self, path: &str) -> String {
        format!("{}/api/{path}", self.origin())
    }
}

/// What has happened at a server since it was started, and how many grants are alive.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct State {
    /// POSTs to the token endpoint, of any fate.
    pub token_requests: u64,
    pub refreshes: u64,
    /// Spent refresh tokens that came back.
    pub reuses: u64,
    pub api_ok: u64,
    pub api_unauthorized: u64,
    pub grants: u64,
}

impl Server for MockServer {
    fn origin(&self) -> String {
        Self::origin(self)
    }

    fn token_url(&self) -> String {
        Self::token_url(self)
    }

    fn revocation_url(&self) -> String {
        Self::revocation_url(self)
    }

    async fn log_in(&self) -> Value {
        serde_json::from_str(&Self::log_in(self, "alice").json()).unwrap()
    }

    async fn expire_access_tokens(&self) {
        Self::expire_access_tokens(self);
    }

    async fn revoke(&self) {
        self.revoke_user("alice");
    }

    async fn state(&self) -> State {
        let counters = self.counters();
        let alive = self.families().into_iter().filter(|family| self.family_alive(*family));
        State {
            token_requests: counters.token_requests,
            refreshes: counters.refreshes,
            reuses: counters.reuses,
            api_ok: counters.api_ok,
            api_unauthorized: counters.api_unauthorized,
            grants: alive.count() as u64,
        }
    }
}

pub const CLIENT_ID: &str = "interop";

/// A program on the person's own machine: it has no secret (RFC 8252 §8.4).
pub const NATIVE_ID: &str = "interop-native";

/// With characters that HTTP Basic carries only form-encoded (RFC 6749 §2.3.1), of those that a
/// secret may have (appendix A.2). A space is not among them: Authlib takes the `+` that it is
/// encoded as for a plus.
pub const CLIENT_SECRET: &str = "s+cret:100%/&";
