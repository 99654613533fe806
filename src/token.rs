//! The tokens of one login: what was issued, and when it stops being fresh.
//!
//! Secrets never show: [`Secret`] has a redacted `Debug`, no `Display`, and is wiped when its
//! last copy goes. Access tokens are opaque and never parsed (RFC 9068 §6): expiry is what the
//! token response said, and only a hint.

mod id_token;
mod response;
pub use response::TokenResponse;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use zeroize::Zeroizing;

use crate::endpoint::ServerMetadata;
use crate::event::LogoutReason;
use crate::lock::digest;
use crate::refresh::JournalKey;

/// An access token to use outside HTTP, from [`Session::access_token`](crate::Session::access_token).
///
/// It remembers which login and refresh it came from, so that
/// [`Session::refused`](crate::Session::refused) can tell whether it is still the current one.
#[derive(Clone)]
pub struct AccessToken(pub(crate) Arc<Tokens>);

impl AccessToken {
    /// The token as the server issued it.
    ///
    /// Keep it out of logs, error messages and URLs (RFC 6750 §5.3).
    pub fn secret(&self) -> &str {
        self.0.access.expose()
    }

    /// When the server said that the token ends, by this machine's clock, if it said so.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.0.expiry.as_ref().map(|expiry| expiry.at.wall)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken([redacted])")
    }
}

/// A refresh token on its way to a [`TokenEndpoint`](crate::TokenEndpoint).
#[derive(Clone)]
pub struct RefreshToken {
    secret: Secret,
    server: Option<Arc<ServerMetadata>>,
}

impl RefreshToken {
    pub(crate) fn new(secret: Secret, server: Option<Arc<ServerMetadata>>) -> Self {
        Self { secret, server }
    }

    /// The token as the server issued it, to be put into the refresh request's body.
    pub fn secret(&self) -> &str {
        self.secret.expose()
    }

    /// The server that issued it, where that was found by its issuer: the only one that it may
    /// go to.
    pub fn server(&self) -> Option<&ServerMetadata> {
        self.server.as_deref()
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken([redacted])")
    }
}

/// A string that must not be seen.
#[derive(Clone)]
pub(crate) struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    pub(crate) fn new(value: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(value.into())))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Both clocks at one instant: the wall clock is what may be stored, the monotonic one is what
/// nobody can set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) wall: SystemTime,
    pub(crate) mono: Instant,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { wall: SystemTime::now(), mono: Instant::now() }
    }
}

/// How much longer an access token will do, as far as this machine can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Freshness {
    /// Use it. Also what a token of unknown lifetime is, until a 401 says otherwise.
    Fresh,
    /// Use it, and refresh in the background.
    Leeway,
    /// Refresh first.
    Expired,
}

/// When an access token ends, on both clocks: whichever comes first counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry {
    pub(crate) at: Moment,
    /// From when on it is refreshed ahead.
    ahead: Moment,
}

impl Expiry {
    /// The expiry of a token received just now.
    pub(crate) fn after(lifetime: Duration, received: Moment) -> Self {
        let at = Moment { wall: received.wall + lifetime, mono: received.mono + lifetime };
        Self::new(at, leeway(lifetime), received)
    }

    /// The expiry of a token that was received at `received`, perhaps by another process, and
    /// read from the store now.
    pub(crate) fn restored(at: SystemTime, received: SystemTime, now: Moment) -> Self {
        let lifetime = at.duration_since(received).unwrap_or_default().min(LIFETIME_MAX);
        // A clock that was set back since must not make the token live longer than it does.
        let left = at.duration_since(now.wall).unwrap_or_default().min(lifetime);
        Self::new(Moment { wall: at, mono: now.mono + left }, leeway(lifetime), now)
    }

    fn new(at: Moment, leeway: Duration, now: Moment) -> Self {
        let ahead = Moment {
            // checked: what lies before the clock's own beginning has begun by now
            wall: at.wall.checked_sub(leeway).unwrap_or(now.wall),
            mono: at.mono.checked_sub(leeway).unwrap_or(now.mono),
        };
        Self { at, ahead }
    }

    pub(crate) fn freshness_at(&self, now: Moment) -> Freshness {
        let is_before = |end: &Moment| now.wall < end.wall && now.mono < end.mono;
        if is_before(&self.ahead) {
            Freshness::Fresh
        } else if is_before(&self.at) {
            Freshness::Leeway
        } else {
            Freshness::Expired
        }
    }

    /// How long until the leeway begins, by the clock that says it is sooner.
    pub(crate) fn leeway_in(&self, now: Moment) -> Duration {
        let wall = self.ahead.wall.duration_since(now.wall).unwrap_or_default();
        wall.min(self.ahead.mono.saturating_duration_since(now.mono))
    }
}

/// A fifth of the lifetime. A second at least, as some servers count in whole ones and end a token
/// up to one early; but never more than half.
fn leeway(lifetime: Duration) -> Duration {
    (lifetime / 5).max(LEEWAY_MIN.min(lifetime / 2)).min(LEEWAY_MAX)
}

/// Where tokens came from: a 401 on a token just born of a refresh is not cured by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Birth {
    Login,
    Refresh,
    /// The first reading of the store: who knows where they were accepted before that.
    Loaded,
    /// A refresh whose first answer was lost: the server may have spent what it gave us.
    ReplayedRefresh,
}

/// Which login a set of tokens belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoginId(pub(crate) String);

impl LoginId {
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let (high, low) = (getrandom::u64()?, getrandom::u64()?);
        Ok(Self(format!("{high:016x}{low:016x}")))
    }

    /// What it is called where others might read it.
    pub(crate) fn hash(&self) -> String {
        digest(&["login", &self.0])
    }
}

/// The tokens of one login and generation, shared by every request that uses them.
pub(crate) struct Tokens {
    pub(crate) login: LoginId,
    /// Counts the logins that this process has seen: a request keeps to the one it started with.
    pub(crate) epoch: u64,
    /// Counts this login's refreshes, 0 for the tokens of the login itself.
    pub(crate) generation: u64,
    pub(crate) birth: Birth,
    /// When they were received; `None` if that lies in the future, so that a clock which jumped
    /// makes them old, never young.
    pub(crate) received: Option<Instant>,
    pub(crate) received_at: SystemTime,
    /// When the login's own tokens were received, whatever has been refreshed since.
    pub(crate) logged_in_at: SystemTime,
    pub(crate) expiry: Option<Expiry>,
    pub(crate) refresh_expires_at: Option<SystemTime>,
    pub(crate) access: Secret,
    pub(crate) refresh: Option<RefreshToken>,
    /// Who issued them, where that was found by the issuer.
    pub(crate) server: Option<Arc<ServerMetadata>>,
    pub(crate) scope: Option<String>,
    /// Whose they are, where the server has said it. The same through all refreshes.
    pub(crate) subject: Option<Arc<str>>,
    /// `Bearer …`, ready to attach without an allocation.
    pub(crate) header: HeaderValue,
    /// What the journal is sealed with. `None` for tokens that another program put into the store.
    pub(crate) key: Option<JournalKey>,
    /// The program that received them, for people.
    pub(crate) saved_by: Arc<str>,
    /// The server has refused the refresh token for good, and this is why.
    pub(crate) rejected: OnceLock<LogoutReason>,
    /// A server refused this access token, and a refresh because of that is under way.
    pub(crate) refused: AtomicBool,
    /// The origins (a bit each) that have accepted this access token.
    pub(crate) accepted: AtomicU64,
}

impl Tokens {
    /// The tokens that a login or a refresh has brought just now.
    ///
    /// What the answer leaves out is kept from `previous` (RFC 6749 §6: an omitted refresh token
    /// stays valid; §5.1: an omitted scope is unchanged).
    pub(crate) fn received(
        response: &TokenResponse,
        previous: Option<&Self>,
        identity: Identity,
        now: Moment,
    ) -> Self {
        let server =
            (response.server.clone()).or_else(|| previous.and_then(|tokens| tokens.server.clone()));
        let kept = || {
            let kept = previous.and_then(|tokens| tokens.refresh.as_ref());
            kept.map(|token| token.secret.clone())
        };
        let refresh = response.refresh_token.clone().or_else(kept);
        let is_rotated = response.refresh_token.is_some();
        let told = response.refresh_expires_in;
        Self {
            login: identity.login,
            epoch: identity.epoch,
            generation: identity.generation,
            birth: identity.birth,
            received: Some(now.mono),
            received_at: now.wall,
            logged_in_at: previous.map_or(now.wall, |tokens| tokens.logged_in_at),
            expiry: response.expires_in.map(|lifetime| Expiry::after(lifetime, now)),
            refresh_expires_at: match told {
                Some(lifetime) => Some(now.wall + lifetime),
                // The old end holds only for the old token.
                None if is_rotated => None,
                None => previous.and_then(|tokens| tokens.refresh_expires_at),
            },
            access: response.access_token.clone(),
            refresh: refresh.map(|secret| RefreshToken::new(secret, server.clone())),
            server,
            scope: (response.scope.clone())
                .or_else(|| previous.and_then(|tokens| tokens.scope.clone())),
            subject: (previous.and_then(|tokens| tokens.subject.clone()))
                .or_else(|| response.subject.as_deref().map(Arc::from)),
            header: response.header(),
            key: identity.key,
            saved_by: program(),
            rejected: OnceLock::new(),
            refused: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
        }
    }

    /// What a refresh has brought whose access token can't be used: its refresh token counts, and
    /// the access token stays the one of `previous`, which has ended if it was `refused`.
    pub(crate) fn with_old_access(
        response: &TokenResponse,
        previous: &Self,
        identity: Identity,
        refused: bool,
    ) -> Self {
        let now = Moment::now();
        let ended = Expiry::restored(now.wall, now.wall, now);
        Self {
            birth: previous.birth,
            received: previous.received,
            received_at: previous.received_at,
            expiry: if refused { Some(ended) } else { previous.expiry },
            access: previous.access.clone(),
            header: previous.header.clone(),
            ..Self::received(response, Some(previous), identity, now)
        }
    }

    pub(crate) fn freshness_at(&self, now: Moment) -> Freshness {
        self.expiry.as_ref().map_or(Freshness::Fresh, |expiry| expiry.freshness_at(now))
    }

    /// Whether these are newer than `other`, of the same login.
    pub(crate) fn supersede(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.generation > other.generation
    }

    pub(crate) fn accepted_by(&self, origin: usize) -> bool {
        self.accepted.load(Ordering::Relaxed) & origin_bit(origin) != 0
    }

    pub(crate) fn set_accepted_by(&self, origin: usize) {
        if !self.accepted_by(origin) {
            self.accepted.fetch_or(origin_bit(origin), Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("login", &self.login.0)
            .field("generation", &self.generation)
            .field("birth", &self.birth)
            .finish_non_exhaustive()
    }
}

/// What makes tokens these ones and no others.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) login: LoginId,
    pub(crate) epoch: u64,
    pub(crate) generation: u64,
    pub(crate) birth: Birth,
    pub(crate) key: Option<JournalKey>,
}

/// This program, for a person who asks who did what: `name (process 123)`.
pub(crate) fn program() -> Arc<str> {
    static PROGRAM: OnceLock<Arc<str>> = OnceLock::new();
    let name = || {
        let path = std::env::current_exe().unwrap_or_default();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        format!("{name} (process {})", std::process::id()).into()
    };
    Arc::clone(PROGRAM.get_or_init(name))
}

/// Origins past the 63rd share the last bit: all that it costs them is a refresh more.
fn origin_bit(origin: usize) -> u64 {
    1 << origin.min(63)
}

/// Ten years: some servers say "never" with a number that no clock can be added to.
pub(crate) const LIFETIME_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const LEEWAY_MIN: Duration = Duration::from_secs(1);

/// Long enough for a slow refresh to end before the token does.
const LEEWAY_MAX: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_redacted_in_debug() {
        let token = RefreshToken::new(Secret::new("canary"), None);
        assert_eq!(format!("{token:?}"), "RefreshToken([redacted])");
    }

    #[test]
    fn leeway_is_a_fifth_of_the_lifetime_within_bounds() {
        let start = Moment::now();
        for (lifetime, leeway) in
            [(1_000, 500), (3_000, 1_000), (60_000, 12_000), (7_200_000, 300_000)]
        {
            let expiry = Expiry::after(Duration::from_millis(lifetime), start);
            let at = |ms: u64| expiry.freshness_at(later(start, ms));
            assert_eq!(at(lifetime - leeway - 1), Freshness::Fresh, "{lifetime}");
            assert_eq!(at(lifetime - leeway), Freshness::Leeway, "{lifetime}");
            assert_eq!(at(lifetime - 1), Freshness::Leeway, "{lifetime}");
            assert_eq!(at(lifetime), Freshness::Expired, "{lifetime}");
        }
    }

    #[test]
    fn the_earlier_of_both_clocks_decides() {
        let start = Moment::now();
        let expiry = Expiry::after(Duration::from_secs(3600), start);
        let asleep = Moment {
            wall: start.wall + Duration::from_secs(4000),
            mono: start.mono + Duration::from_secs(10),
        };
        assert_eq!(expiry.freshness_at(asleep), Freshness::Expired);
        let set_back = Moment {
            wall: start.wall - Duration::from_secs(4 * 3600),
            mono: start.mono + Duration::from_secs(3600),
        };
        assert_eq!(expiry.freshness_at(set_back), Freshness::Expired);
    }

    #[test]
    fn a_restored_token_never_outlives_its_lifetime_when_the_clock_was_set_back() {
        let now = Moment::now();
        let received = now.wall + Duration::from_secs(4 * 3600);
        let expiry = Expiry::restored(received + Duration::from_secs(60), received, now);
        assert_eq!(expiry.freshness_at(now), Freshness::Fresh);
        assert_eq!(expiry.freshness_at(later(now, 60_000)), Freshness::Expired);
    }

    #[test]
    fn a_token_of_unknown_lifetime_is_fresh_until_refused() {
        let tokens = tokens_of(TokenResponse::new("a"), None);
        let in_a_year = later(Moment::now(), 365 * 24 * 3600 * 1000);
        assert_eq!(tokens.freshness_at(in_a_year), Freshness::Fresh);
    }

    #[test]
    fn an_omitted_refresh_token_and_scope_are_kept_and_a_rotated_one_drops_the_old_end() {
        let day = Duration::from_secs(24 * 3600);
        let login = tokens_of(
            TokenResponse::new("a0").refresh_token("r0").scope("read").refresh_expires_in(day),
            None,
        );
        let kept = tokens_of(TokenResponse::new("a1"), Some(&login));
        assert_eq!(kept.refresh.as_ref().map(RefreshToken::secret), Some("r0"));
        assert_eq!(kept.scope.as_deref(), Some("read"));
        assert_eq!(kept.refresh_expires_at, login.refresh_expires_at);
        let rotated = tokens_of(TokenResponse::new("a2").refresh_token("r1"), Some(&kept));
        assert_eq!(rotated.refresh.as_ref().map(RefreshToken::secret), Some("r1"));
        assert_eq!(rotated.refresh_expires_at, None);
    }

    fn tokens_of(response: TokenResponse, previous: Option<&Tokens>) -> Tokens {
        let identity = Identity {
            login: LoginId("l".into()),
            epoch: 0,
            generation: 0,
            birth: Birth::Login,
            key: None,
        };
        Tokens::received(&response, previous, identity, Moment::now())
    }

    fn later(from: Moment, ms: u64) -> Moment {
        Moment {
            wall: from.wall + Duration::from_millis(ms),
            mono: from.mono + Duration::from_millis(ms),
        }
    }
}
