//! What has happened so far, in numbers.

use serde::Serialize;

/// How often each thing has happened since the start, or since the counters were reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Requests that arrived at `/token` or `/refresh-token`, of any kind and fate.
    pub token_requests: u64,
    /// Refreshes that issued new tokens. Grace replays are not among them.
    pub refreshes: u64,
    /// Spent refresh tokens forgiven: their successors were handed out once more.
    pub grace_replays: u64,
    /// Spent refresh tokens presented outside the grace window, each time.
    pub reuses: u64,
    /// Refreshes refused on account of the token: unknown, spent, revoked, expired or from another context.
    pub invalid_grants: u64,
    /// Refreshes and API requests refused because they came from another context than the login.
    pub context_mismatches: u64,
    /// Requests answered 429 by the rate limit.
    pub rate_limited: u64,
    /// Requests refused because the client did not authenticate.
    pub client_failures: u64,
    /// Families revoked on request, at `/revoke` or by a control. Those lost to reuse are not among them.
    pub revocations: u64,
    /// Logins, over HTTP or by [`MockServer::log_in`](crate::MockServer::log_in).
    pub logins: u64,
    /// Authorization codes issued.
    pub codes: u64,
    /// Looks at a device login, of any outcome.
    pub device_polls: u64,
    /// Requests that arrived at the API, of any fate.
    pub api_requests: u64,
    /// API requests that were handled with a status of 200 to 299.
    pub api_ok: u64,
    /// API requests that were handled with status 401.
    pub api_unauthorized: u64,
    /// Faults that hit a request.
    pub faults: u64,
}
