//! The tokens of one login: what was issued, and when it stops being fresh.
//!
//! Secrets never show: [`Secret`] has a redacted `Debug`, no `Display`, and is wiped when its
//! last copy goes. Access tokens are opaque and never parsed (RFC 9068 §6): expiry is what the
//! token response said, and only a hint.

mod expiry;
pub(crate) use expiry::{Expiry, Freshness, LIFETIME_MAX, Moment};
mod id_token;
mod response;
pub use response::TokenResponse;
#[cfg(feature = "login")]
pub(crate) use response::seconds;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

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

/// Where tokens came from: a 401 on a token just born of a refresh is not cured by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Birth {
    Login,
    Refresh,
    /// The first reading of the store: who knows where they were accepted before that.
    Loaded,
    /// A refresh whose token had been sent before, by whatever program, without an answer: the server
    /// may have spent what it gave us.
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
    /// The refresh token came with the access token of another user: what it brings is theirs, unless
    /// the server says that it isn't.
    pub(crate) of_another: bool,
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
            of_another: false,
            header: response.header(),
            key: identity.key,
            saved_by: program(),
            rejected: OnceLock::new(),
            refused: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
        }
    }

    /// Whether the tokens of a refresh can be used in place of these: they can be sent, and are
    /// nobody else's (OpenID Connect Core §12.2).
    pub(crate) fn check_next(&self, response: &TokenResponse) -> Result<(), String> {
        response.check()?;
        if self.is_followed_by_another(response) {
            return Err("the server has answered with the tokens of another user".to_owned());
        }
        Ok(())
    }

    /// Whether the answer is to be taken for another user's.
    fn is_followed_by_another(&self, response: &TokenResponse) -> bool {
        match (&self.subject, &response.subject) {
            (Some(before), Some(now)) if self.of_another => **before != **now,
            (Some(before), Some(now)) => id_token::is_of_another(before, now),
            (_, None) => self.of_another,
            (None, Some(_)) => false,
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
            // Whether it is in doubt is of the new refresh token, the rest of the old access token.
            birth: match (identity.birth, previous.birth) {
                (Birth::ReplayedRefresh, _) => Birth::ReplayedRefresh,
                (_, Birth::ReplayedRefresh) => Birth::Refresh,
                (_, previous) => previous,
            },
            received: previous.received,
            received_at: previous.received_at,
            expiry: if refused { Some(ended) } else { previous.expiry },
            access: previous.access.clone(),
            of_another: previous.is_followed_by_another(response),
            header: previous.header.clone(),
            ..Self::received(response, Some(previous), identity, now)
        }
    }

    pub(crate) fn freshness_at(&self, now: Moment) -> Freshness {
        self.expiry.as_ref().map_or(Freshness::Fresh, |expiry| expiry.freshness_at(now))
    }

    /// Whether they can be used, or replaced: without a refresh token they end with the access token.
    pub(crate) fn go_on_at(&self, now: Moment) -> bool {
        self.refresh.is_some() || self.freshness_at(now) != Freshness::Expired
    }

    /// Which ones they are for this session: the epoch, and the generation in it.
    pub(crate) fn version(&self) -> (u64, u64) {
        (self.epoch, self.generation)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn secrets_are_redacted_in_debug() {
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret:?}"), "[redacted]");
        let token = RefreshToken::new(secret, None);
        assert_eq!(format!("{token:?}"), "RefreshToken([redacted])");
        let tokens = tokens_of(TokenResponse::new("canary"), None);
        let shown = r#"Tokens { login: "l", generation: 0, birth: Login, .. }"#;
        assert_eq!(format!("{tokens:?}"), shown);
        assert_eq!(format!("{:?}", AccessToken(tokens.into())), "AccessToken([redacted])");
    }

    #[test]
    fn a_token_of_unknown_lifetime_is_fresh_until_refused() {
        let tokens = tokens_of(TokenResponse::new("a"), None);
        let (now, year) = (Moment::now(), Duration::from_secs(365 * 24 * 3600));
        let in_a_year = Moment { wall: now.wall + year, mono: now.mono + year };
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

    #[test]
    fn an_access_token_that_stays_keeps_its_age_and_the_new_refresh_token_counts() {
        let minute = Duration::from_secs(60);
        let login = TokenResponse::new("a0").refresh_token("r0").expires_in(minute);
        let login = Tokens { birth: Birth::ReplayedRefresh, ..tokens_of(login, None) };
        // Not of this moment, so that it can be told.
        let received = login.received.and_then(|received| received.checked_sub(minute));
        let received_at = login.received_at - minute;
        let login = Tokens { received, received_at, ..login };
        let response = TokenResponse::new("a\n1").refresh_token("r1").expires_in(60 * minute);
        for (refused, in_a_moment) in [(false, Freshness::Fresh), (true, Freshness::Expired)] {
            let tokens = Tokens::with_old_access(&response, &login, identity(7), refused);
            assert_eq!(tokens.access.expose(), "a0");
            assert_eq!(tokens.header, "Bearer a0");
            assert_eq!(tokens.generation, 7);
            assert_eq!((tokens.received, tokens.received_at), (received, received_at));
            let now = Moment::now();
            assert_eq!(tokens.freshness_at(now), in_a_moment);
            let later = Moment { wall: now.wall + minute, mono: now.mono + minute };
            assert_eq!(tokens.freshness_at(later), Freshness::Expired);
            assert_eq!(tokens.refresh.as_ref().map(RefreshToken::secret), Some("r1"));
        }
    }

    #[test]
    fn with_an_access_token_that_stays_only_the_new_refresh_token_can_be_in_doubt() {
        use Birth::{Loaded, Login, Refresh, ReplayedRefresh};

        let response = TokenResponse::new("a\n1").refresh_token("r1");
        for (before, now, expected) in [
            (Login, Refresh, Login),
            (Loaded, Refresh, Loaded),
            (ReplayedRefresh, Refresh, Refresh),
            (Login, ReplayedRefresh, ReplayedRefresh),
        ] {
            let login = Tokens { birth: before, ..tokens_of(TokenResponse::new("a0"), None) };
            let identity = Identity { birth: now, ..identity(7) };
            let tokens = Tokens::with_old_access(&response, &login, identity, false);
            assert_eq!(tokens.birth, expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn an_origin_is_remembered_by_itself_up_to_the_63rd() {
        for (origin, all) in [(0, vec![0]), (1, vec![1]), (62, vec![62]), (70, vec![63, 64, 70])] {
            let tokens = tokens_of(TokenResponse::new("a"), None);
            tokens.set_accepted_by(origin);
            let known = [0, 1, 2, 61, 62, 63, 64, 70].into_iter();
            let known: Vec<_> = known.filter(|known| tokens.accepted_by(*known)).collect();
            assert_eq!(known, all);
        }
    }

    fn tokens_of(response: TokenResponse, previous: Option<&Tokens>) -> Tokens {
        Tokens::received(&response, previous, identity(0), Moment::now())
    }

    fn identity(generation: u64) -> Identity {
        let login = LoginId("l".into());
        Identity { login, epoch: 0, generation, birth: Birth::Login, key: None }
    }
}
