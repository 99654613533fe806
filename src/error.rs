//! The one error: opaque, with a question for each thing that a program can do about it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::RefreshError;
use crate::event::LogoutReason;
use crate::store::StoreError;
use crate::token::TokenResponse;

/// Why a session could not do what was asked of it.
///
/// Cheap to clone: everybody who waited for a refresh that failed gets the same one. It is found
/// again behind reqwest-middleware, reqwest-retry and anyhow's context with [`Error::find`].
///
/// `Display` is one clause, the cause is in [`source`](StdError::source), and neither holds a
/// token.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
    retry_after: Option<Duration>,
    tokens: Option<Arc<TokenResponse>>,
    link: Option<Arc<Link>>,
}

struct Inner {
    kind: Kind,
    source: Option<Source>,
}

pub(crate) type Source = Box<dyn StdError + Send + Sync>;

#[derive(Debug)]
enum Kind {
    LoggedOut(Option<LogoutReason>),
    /// A refresh that failed for now; nothing is lost.
    Refresh,
    /// A refresh that storm control held back.
    Withheld,
    TimedOut,
    /// The locks were not to be had in time: another refresh or login of this process has them.
    Busy,
    /// The same, of another process: the file, and how long was waited.
    Locked(String, Duration),
    LoginRequired(&'static str),
    Login(Unfinished),
    Configuration(String),
    Store(String),
    Internal(&'static str),
}

/// How a login came to nothing.
#[derive(Debug)]
#[cfg_attr(not(feature = "login"), expect(dead_code, reason = "there are no logins without it"))]
pub(crate) enum Unfinished {
    Failed(String),
    Denied,
    TimedOut,
    /// For now.
    Unreachable,
}

impl Error {
    /// Finds the error of this crate in `error` or anywhere in its chain of sources: also
    /// inside [`reqwest_middleware::Error`], behind reqwest-retry and behind anyhow's context.
    ///
    /// Give it `&error`, or `error.as_ref()` for an `anyhow::Error` or a boxed error.
    ///
    /// ```
    /// # fn show(error: reqwest_middleware::Error) {
    /// if let Some(error) = reqwest_reauth::Error::find(&error) {
    ///     println!("log in again: {}", error.is_logged_out());
    /// }
    /// # }
    /// ```
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut link = Some(error);
        while let Some(error) = link {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            if let Some(Link(found)) = error.downcast_ref() {
                return Some(found);
            }
            // Its `source` skips the error it holds, and goes on with that one's source.
            if let Some(reqwest_middleware::Error::Middleware(inner)) = error.downcast_ref() {
                return inner.downcast_ref::<Self>().or_else(|| inner.chain().find_map(Self::find));
            }
            link = error.source();
        }
        None
    }

    /// Nobody is logged in, or the session that the request belonged to has ended: only a new
    /// login helps.
    pub fn is_logged_out(&self) -> bool {
        matches!(self.inner.kind, Kind::LoggedOut(_))
    }

    /// Why the session ended, where it did while this program ran. `None` also when there was
    /// no session to begin with.
    pub fn logout_reason(&self) -> Option<LogoutReason> {
        match self.inner.kind {
            Kind::LoggedOut(reason) => reason,
            _ => None,
        }
    }

    /// The same call may succeed later with nobody doing anything: the network, the token
    /// endpoint or the store failed, a wait ended, or refreshes are held back. The session lives.
    pub fn is_transient(&self) -> bool {
        match &self.inner.kind {
            Kind::Refresh | Kind::Withheld | Kind::Login(Unfinished::Unreachable) => true,
            Kind::TimedOut | Kind::Busy | Kind::Locked(..) => true,
            Kind::Store(_) => self.store_error().is_none_or(|error| !error.is_corrupt()),
            _ => false,
        }
    }

    /// How long to wait before another try makes sense, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The request's own time-out ended while it waited for a token; or nobody finished a login
    /// in time, also where that is why a request is logged out.
    pub fn is_timeout(&self) -> bool {
        matches!(self.inner.kind, Kind::TimedOut | Kind::Login(Unfinished::TimedOut))
            || self.login_error().is_some_and(Self::is_timeout)
    }

    /// The person, or the server in their place, said no to a login, also where that is why a
    /// request is logged out.
    pub fn is_denied(&self) -> bool {
        matches!(self.inner.kind, Kind::Login(Unfinished::Denied))
            || self.login_error().is_some_and(Self::is_denied)
    }

    /// A new login helps, and nothing was cleared: the server refuses the access token, and the
    /// session has no refresh token to get another; or the token endpoint has refused three
    /// refreshes in a row without saying why, or for a reason that nobody knows, or has answered
    /// twice with another user's tokens; or the store holds what is no record, or has lost the one
    /// that it held ([`is_store`](Self::is_store) as well).
    pub fn is_login_required(&self) -> bool {
        let login_helps = |error: &StoreError| error.is_corrupt() || error.is_lost();
        self.asks_for_login() || self.is_store() && self.store_error().is_some_and(login_helps)
    }

    /// The same, but for the store.
    pub(crate) fn asks_for_login(&self) -> bool {
        matches!(self.inner.kind, Kind::LoginRequired(_))
    }

    /// The program, or the server's idea of it, has to be put right: a URL, the client id, the
    /// scope. Trying again won't help; the tokens are kept.
    pub fn is_configuration(&self) -> bool {
        matches!(self.inner.kind, Kind::Configuration(_))
    }

    /// The token store failed. Transient too, unless its content is unreadable.
    pub fn is_store(&self) -> bool {
        matches!(self.inner.kind, Kind::Store(_))
    }

    /// The tokens that [`Session::log_in`](crate::Session::log_in) was given and could not keep.
    pub fn tokens(&self) -> Option<&TokenResponse> {
        self.tokens.as_deref()
    }

    fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }

    /// Why the person who was asked did not log in again.
    fn login_error(&self) -> Option<&Self> {
        self.inner.source.as_ref()?.downcast_ref()
    }

    pub(crate) fn store_error(&self) -> Option<&StoreError> {
        self.inner.source.as_ref()?.downcast_ref()
    }

    pub(crate) fn logged_out(reason: Option<LogoutReason>) -> Self {
        Self::new(Kind::LoggedOut(reason), None)
    }

    pub(crate) fn refresh(cause: RefreshError) -> Self {
        let retry_after = cause.retry_after();
        match cause.configuration_hint() {
            Some(hint) => Self::new(Kind::Configuration(hint.to_owned()), Some(cause.into())),
            None => Self::new(Kind::Refresh, Some(cause.into())).with_retry_after(retry_after),
        }
    }

    pub(crate) fn withheld(retry_after: Duration) -> Self {
        Self::new(Kind::Withheld, None).with_retry_after(Some(retry_after))
    }

    pub(crate) fn timed_out() -> Self {
        Self::new(Kind::TimedOut, None)
    }

    pub(crate) fn busy() -> Self {
        Self::new(Kind::Busy, None)
    }

    pub(crate) fn locked(file: String, waited: Duration) -> Self {
        Self::new(Kind::Locked(file, waited), None)
    }

    pub(crate) fn login_required() -> Self {
        let what = "the access token was refused and there is no refresh token: log in";
        Self::new(Kind::LoginRequired(what), None)
    }

    pub(crate) fn refused_for_no_known_reason(cause: RefreshError) -> Self {
        let what = "the token endpoint keeps refusing to refresh for no known reason: log in";
        let retry_after = cause.retry_after();
        Self::new(Kind::LoginRequired(what), Some(cause.into())).with_retry_after(retry_after)
    }

    pub(crate) fn of_another_user(cause: RefreshError) -> Self {
        let what = "the token endpoint goes on answering for another user: log in";
        Self::new(Kind::LoginRequired(what), Some(cause.into()))
    }

    /// What the authorization server made of a request of no session's.
    pub(crate) fn server(cause: RefreshError) -> Self {
        let retry_after = cause.retry_after();
        let kind = match cause.configuration_hint() {
            Some(_) => Kind::Configuration(
                "the authorization server can't be used with these settings".to_owned(),
            ),
            None => Kind::Login(Unfinished::Unreachable),
        };
        Self::new(kind, Some(cause.into())).with_retry_after(retry_after)
    }

    pub(crate) fn unfinished(what: Unfinished, cause: Option<Source>) -> Self {
        Self::new(Kind::Login(what), cause)
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self::new(Kind::Configuration(message.into()), None)
    }

    /// `store` says which one, as in "the file /home/me/tokens.json".
    pub(crate) fn store(store: &str, cause: StoreError) -> Self {
        Self::new(Kind::Store(store.to_owned()), Some(cause.into()))
    }

    pub(crate) fn internal(what: &'static str, source: Option<Source>) -> Self {
        Self::new(Kind::Internal(what), source)
    }

    /// The same, where a person could have helped, and `cause` says why not.
    pub(crate) fn because(&self, cause: Self) -> Self {
        let kind = match self.inner.kind {
            Kind::LoggedOut(reason) => Kind::LoggedOut(reason),
            Kind::LoginRequired(what) => Kind::LoginRequired(what),
            _ => return self.clone(),
        };
        Self::new(kind, Some(Box::new(cause)))
    }

    /// Whether it tells of the very same event, and to wait as long.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) && self.retry_after == other.retry_after
    }

    pub(crate) fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    pub(crate) fn with_tokens(mut self, tokens: TokenResponse) -> Self {
        self.tokens = Some(Arc::new(tokens));
        self
    }

    fn new(kind: Kind, source: Option<Source>) -> Self {
        let inner = Arc::new(Inner { kind, source });
        Self { inner, retry_after: None, tokens: None, link: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner.kind {
            Kind::LoggedOut(None) => f.write_str("not logged in"),
            Kind::LoggedOut(Some(reason)) => write!(f, "logged out: {reason}"),
            Kind::Refresh => f.write_str("the access token could not be refreshed for now"),
            Kind::Withheld => {
                f.write_str("the server keeps refusing new access tokens, so none is fetched now")
            }
            Kind::Login(Unfinished::Failed(what)) => write!(f, "the login failed: {what}"),
            Kind::Login(Unfinished::Denied) => f.write_str("the login was refused"),
            Kind::Login(Unfinished::TimedOut) => f.write_str("nobody finished the login in time"),
            Kind::Login(Unfinished::Unreachable) => {
                f.write_str("the authorization server could not be asked for now")
            }
            Kind::TimedOut => f.write_str("the request timed out while it waited for a token"),
            Kind::Busy => f.write_str("an earlier refresh or login of this session still goes on"),
            Kind::Locked(file, waited) => {
                let seconds = waited.as_secs_f32();
                write!(
                    f,
                    "another program, or another session of this one, has held the lock {file} \
                     for {seconds} seconds or more"
                )
            }
            Kind::Configuration(what) => f.write_str(what),
            Kind::Store(store) => write!(f, "the token store failed: {store}"),
            Kind::LoginRequired(what) | Kind::Internal(what) => f.write_str(what),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("retry_after", &self.retry_after)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.link {
            Some(link) => Some(&**link),
            None => self.cause(),
        }
    }
}

impl From<Error> for reqwest_middleware::Error {
    fn from(error: Error) -> Self {
        let link = Some(Arc::new(Link(error.clone())));
        Self::middleware(Error { link, ..error })
    }
}

/// The error once more, in the place of its cause.
///
/// reqwest-middleware's and reqwest-retry's errors are transparent: their `source` is that of the
/// error they hold, and where one holds the other, ours is in no chain. Its source is. Displayed,
/// it is the cause, or what to do.
struct Link(Error);

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.cause() {
            Some(cause) => fmt::Display::fmt(cause, f),
            None => f.write_str(self.0.inner.kind.advice()),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl StdError for Link {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause()?.source()
    }
}

impl Kind {
    fn advice(&self) -> &'static str {
        match self {
            Self::LoggedOut(_) | Self::LoginRequired(_) => "log in to go on",
            Self::Refresh | Self::Withheld | Self::Login(Unfinished::Unreachable) => {
                "try again later"
            }
            Self::Busy | Self::Locked(..) | Self::Store(_) => "try again later",
            Self::TimedOut => "allow more time, or try again",
            Self::Login(_) => "log in again",
            Self::Configuration(_) => "put the program's settings right",
            Self::Internal(_) => "this program has a defect",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_behind_middleware_retry_and_context() {
        let bare = Error::logged_out(Some(LogoutReason::Revoked));
        let middleware = || reqwest_middleware::Error::from(bare.clone());
        let retry = reqwest_retry::RetryError::WithRetries { retries: 3, err: middleware() };
        let behind_retry = reqwest_middleware::Error::Middleware(retry.into());
        let plain_retry =
            reqwest_middleware::Error::middleware(reqwest_retry::RetryError::Error(middleware()));
        let context = anyhow::Error::new(middleware()).context("loading").context("at start");
        let boxed: Box<dyn StdError> = Box::new(middleware());
        let inner_context =
            reqwest_middleware::Error::Middleware(anyhow::Error::new(bare.clone()).context("x"));
        let all: [&(dyn StdError + 'static); 7] = [
            &bare,
            &middleware(),
            &behind_retry,
            &plain_retry,
            context.as_ref(),
            boxed.as_ref(),
            &inner_context,
        ];
        for error in all {
            let found = Error::find(error).expect("found");
            assert!(found.is_logged_out());
            assert_eq!(found.logout_reason(), Some(LogoutReason::Revoked));
        }
        let chain = format!("{:#}", anyhow::Error::new(middleware()));
        assert_eq!(chain, "logged out: the server revoked the session: log in to go on");
        assert!(Error::find(&std::io::Error::other("x")).is_none());
        let foreign = reqwest_middleware::Error::Middleware(anyhow::anyhow!("x"));
        assert!(Error::find(&foreign).is_none());
    }
}
