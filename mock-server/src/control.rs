//! What a test does to the server from outside, and what it asks of it.

use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::counters::Counters;
use crate::device::Decision;
use crate::family::FamilyId;
use crate::fault::Fault;
use crate::history::Entry;
use crate::hold::{Gate, Hold};
use crate::issued::Issued;
use crate::route::{Recorded, Route};
use crate::server::MockServer;

/// # Logins and tokens
impl MockServer {
    /// Logs a user in and begins a family, bound to no context.
    pub fn log_in(&self, user: &str) -> Issued {
        self.shared.log_in(user, None)
    }

    /// Logs a user in from a context: only the headers named to
    /// [`Builder::bind_context`](crate::Builder::bind_context) matter, and those not given here
    /// count as absent.
    ///
    /// # Panics
    ///
    /// If a name or value cannot be a header.
    pub fn log_in_from(&self, user: &str, headers: &[(&str, &str)]) -> Issued {
        let header = |&(name, value): &(&str, &str)| {
            let name: HeaderName = name.parse().ok()?;
            Some((name, HeaderValue::from_str(value).ok()?))
        };
        let Some(headers) = headers.iter().map(header).collect::<Option<HeaderMap>>() else {
            panic!("not headers: {headers:?}");
        };
        self.shared.log_in(user, Some(self.shared.context(&headers)))
    }

    /// Expires every access token issued so far: the API answers them 401 `invalid_token`.
    pub fn expire_access_tokens(&self) {
        self.shared.lock().grants.expire_access(Instant::now());
    }

    /// Expires every refresh token issued so far.
    pub fn expire_refresh_tokens(&self) {
        self.shared.lock().grants.expire_refresh(Instant::now());
    }

    /// Revokes all families of a user.
    pub fn revoke_user(&self, user: &str) {
        let mut state = self.shared.lock();
        let revoked = state.grants.revoke_user(user, Instant::now());
        state.counters.revocations += revoked;
    }

    /// Revokes a family: its access and refresh tokens are refused from now on.
    pub fn revoke_family(&self, family: FamilyId) {
        let mut state = self.shared.lock();
        let revoked = state.grants.revoke(family, Instant::now());
        state.counters.revocations += u64::from(revoked);
    }

    /// Says yes as `user` to the login on another device that has this code, however it is
    /// written. Whether there is one.
    pub fn approve_device(&self, user_code: &str, user: &str) -> bool {
        let decision = Decision::Allowed(user.to_owned());
        self.shared.lock().devices.decide(user_code, decision, Instant::now())
    }

    /// Says no to it.
    pub fn deny_device(&self, user_code: &str) -> bool {
        self.shared.lock().devices.decide(user_code, Decision::Denied, Instant::now())
    }

    /// The codes of the logins on other devices that still wait for a person.
    pub fn device_user_codes(&self) -> Vec<String> {
        self.shared.lock().devices.user_codes(Instant::now())
    }

    /// Answers 401 `invalid_token` to every token at this path, such as `/api/forbidden`.
    pub fn refuse_path(&self, path: &str) {
        self.shared.lock().refused_paths.insert(path.to_owned());
    }

    /// Takes [`MockServer::refuse_path`] back.
    pub fn accept_path(&self, path: &str) {
        self.shared.lock().refused_paths.remove(path);
    }
}

/// # Faults and races
impl MockServer {
    /// Lets the fault hit the next `n` requests that arrive on the route.
    ///
    /// Faults queue up: these requests are counted after those of earlier calls.
    pub fn on_next(&self, route: Route, n: usize, fault: Fault) {
        self.shared.lock().lane(route).push_fault(n, fault);
    }

    /// Parks every request on the route before it is handled, until the hold is released.
    ///
    /// ```
    /// use mock_server::{MockServer, Route};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = MockServer::start();
    /// let token = server.log_in("alice").access_token;
    /// let hold = server.hold(Route::Api);
    /// let call = reqwest::Client::new().get(server.api_url("/")).bearer_auth(token);
    /// let answer = tokio::spawn(call.send());
    ///
    /// hold.arrived(1).await;
    /// server.expire_access_tokens(); // while the request is on its way
    /// hold.release();
    /// assert_eq!(answer.await??.status(), 401);
    /// # Ok(())
    /// # }
    /// ```
    pub fn hold(&self, route: Route) -> Hold {
        let gate = Gate::hold();
        let mut state = self.shared.lock();
        state.lane(route).push_hold(gate.clone());
        Hold::new(gate, self.runtime.clone())
    }

    /// Parks every request on the route after it is handled (tokens are rotated) and before it
    /// is answered, until the hold is released.
    pub fn hold_answers(&self, route: Route) -> Hold {
        let gate = Gate::hold();
        let mut state = self.shared.lock();
        state.lane(route).push_answer_hold(gate.clone());
        Hold::new(gate, self.runtime.clone())
    }

    /// Parks the next `n` requests on the route until all of them have arrived.
    ///
    /// If they have not after 60 seconds, those that did fail, and so does dropping the server.
    pub fn barrier(&self, route: Route, n: usize) {
        self.shared.lock().lane(route).push_barrier(n);
    }
}

/// # Observation
impl MockServer {
    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.shared.lock().counters
    }

    /// Sets all counters to zero. Histories and recordings stay.
    pub fn reset_counters(&self) {
        self.shared.lock().counters = Counters::default();
    }

    /// Every request seen on the route, in order of arrival; at most the latest 10,000.
    pub fn requests(&self, route: Route) -> Vec<Recorded> {
        let mut state = self.shared.lock();
        state.lane(route).recorded.iter().cloned().collect()
    }

    /// All families, in the order of their logins.
    pub fn families(&self) -> Vec<FamilyId> {
        let state = self.shared.lock();
        state.grants.families().iter().map(|f| f.id).collect()
    }

    /// The family of a token of either kind, good or not.
    pub fn family_of(&self, token: &str) -> Option<FamilyId> {
        self.shared.lock().grants.find(token).map(|(id, _)| id)
    }

    /// How many refreshes lie between the login and this token of either kind, good or not.
    pub fn generation_of(&self, token: &str) -> Option<u64> {
        self.shared.lock().grants.find(token).map(|(_, generation)| generation as u64)
    }

    /// What happened to a family, in order; empty if there is none by this name.
    pub fn history(&self, family: FamilyId) -> Vec<Entry> {
        self.shared.lock().grants.history(family)
    }

    /// Whether the family exists and is not revoked.
    pub fn family_alive(&self, family: FamilyId) -> bool {
        let state = self.shared.lock();
        state.grants.family(family).is_some_and(|f| f.alive)
    }

    /// The refresh token of the family that is not spent, unless the family is revoked.
    pub fn current_refresh_token(&self, family: FamilyId) -> Option<String> {
        self.shared.lock().grants.current(family).map(str::to_owned)
    }

    /// Whether this is the [current refresh token](MockServer::current_refresh_token) of a family.
    pub fn is_current(&self, refresh_token: &str) -> bool {
        let state = self.shared.lock();
        let found = state.grants.find(refresh_token);
        found.is_some_and(|(id, _)| state.grants.current(id) == Some(refresh_token))
    }
}
