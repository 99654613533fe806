//! A request's way: attach, send, and on a 401 refresh and replay.
//!
//! The middleware sends a request as it is, once, with the session's token. It sends it a second
//! time only after a 401 that a new token may cure, and never a third time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Extensions, StatusCode, header};
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next, Result};

use crate::challenge::{self, Challenge, StepUp};
use crate::error::Error;
use crate::event::Event;
use crate::refresh::Place;
use crate::session::{Recovery, Session};
use crate::token::{Moment, Tokens};

/// Attaches a session's token to requests, from [`Session::middleware`].
///
/// - Requests to an origin that isn't the session's, requests that carry an `Authorization`
///   header of their own, and requests with the [`NoAuth`] extension pass untouched.
/// - An expired token is refreshed before the request is sent; one that expires soon, in the
///   background.
/// - A 401 leads to one refresh, shared by all requests that need it, and one replay. A second
///   401 is the caller's, and so is one that says no new token would help.
/// - A request that can't have a token fails with an [`Error`] inside
///   [`reqwest_middleware::Error::Middleware`]; find it with [`Error::find`].
///
/// A response carries [`NotReplayed`], [`LoginRequired`], [`RefreshWithheld`] or
/// [`StepUpRequired`] in its extensions where a 401 was left to the caller for that reason.
///
/// In tests, a response that a middleware further in makes of an [`http::Response`] has no URL of
/// the request's origin, so that its 401 is not recognized: give it the request's with
/// [`ResponseBuilderExt::url`](reqwest::ResponseBuilderExt::url).
#[derive(Clone)]
pub struct ReauthMiddleware {
    session: Session,
}

impl ReauthMiddleware {
    pub(crate) fn new(session: Session) -> Self {
        Self { session }
    }

    /// Where the request goes, if it is to carry the token.
    fn place_of(&self, request: &Request, extensions: &Extensions) -> Option<Place> {
        if request.headers().contains_key(header::AUTHORIZATION)
            || extensions.get::<NoAuth>().is_some()
        {
            return None;
        }
        let origins = &self.session.core().origins;
        let origin = origins.iter().position(|origin| origin.covers(request.url()))?;
        Some(Place::new(origin, request.method(), request.url().path()))
    }

    fn attach(&self, request: &mut Request, tokens: &Tokens) {
        let headers = request.headers_mut();
        for (name, value) in &self.session.core().headers {
            if !headers.contains_key(name) {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(header::AUTHORIZATION, tokens.header.clone());
    }

    /// Whether this is a 401 on the token that the request carried, which a new one may cure.
    /// What shows the token to be accepted is noted.
    fn is_refused(&self, response: &mut Response, tokens: &Tokens, place: Place) -> bool {
        let core = self.session.core();
        // A redirect may have led elsewhere: what is said there is no reason to refresh.
        if !core.origins[place.origin].covers(response.url()) {
            return false;
        }
        let status = response.status();
        let says_so = || core.unauthorized.as_ref().is_some_and(|is| is(response));
        if status != StatusCode::UNAUTHORIZED && !says_so() {
            if status.is_success() || status == StatusCode::NOT_MODIFIED {
                core.storm.accepted(tokens, place);
            }
            return false;
        }
        match challenge::read(response.headers()) {
            Challenge::Refresh => {
                core.counters.refusals.count();
                true
            }
            Challenge::Final => false,
            Challenge::StepUp(step_up) => {
                // The token is good; it is the login that is too weak.
                core.storm.accepted(tokens, place);
                core.emit(Event::StepUpRequired);
                response.extensions_mut().insert(StepUpRequired(step_up));
                false
            }
        }
    }

    /// What comes of a 401: the answer to the replay with a new token, or the 401 with a mark.
    async fn once_more(
        &self,
        refused: Refused,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let Refused { response, tokens, place, spare, fill, patience } = refused;
        let core = self.session.core();
        let fresh = match patience.wait(core.recover(&tokens, Some(place))).await? {
            Recovery::Replay(fresh) => fresh,
            Recovery::Withheld(wait) => return Ok(marked(response, RefreshWithheld(wait))),
            Recovery::LoginRequired(_) => return Ok(marked(response, LoginRequired)),
        };
        let Some(mut replay) = spare else {
            core.storm.untold(Moment::now(), &fresh, place);
            return Ok(marked(response, NotReplayed));
        };
        if let Some(ReplayBody(fill)) = fill {
            fill(&mut replay);
        }
        // Its connection, or a permit of an inner middleware, may be needed for the replay.
        drop(response);

        core.counters.replays.count();
        self.attach(&mut replay, &fresh);
        patience.apply_to(&mut replay);
        let sent = Moment::now();
        let mut response = next.run(replay, extensions).await?;
        if self.is_refused(&mut response, &fresh, place) {
            core.storm.refused_at(Moment::now(), sent, &fresh, place);
        } else if !is_busy(response.status()) {
            core.storm.tried(place);
        }
        Ok(response)
    }
}

#[async_trait]
impl Middleware for ReauthMiddleware {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let Some(place) = self.place_of(&request, extensions) else {
            return next.run(request, extensions).await;
        };
        let core = self.session.core();
        let patience = Patience::of(&request);
        let tokens = match core.ready() {
            Some(tokens) => tokens,
            // Boxed: the usual way stays small.
            None => patience.wait(Box::pin(core.current_after_waiting())).await?,
        };

        // A block, so that nothing in it is kept in the future of what follows.
        let again = {
            let mut spare = request.try_clone();
            let fill = ReplayBody::beside(&mut spare, &mut request, extensions);
            self.attach(&mut request, &tokens);
            patience.apply_to(&mut request);
            let mut sent = next.clone().run(request, extensions).await;
            let is_refused = |response| self.is_refused(response, &tokens, place);
            if !sent.as_mut().is_ok_and(is_refused) {
                return sent;
            }
            let refused = Refused { response: sent?, tokens, place, spare, fill, patience };
            // In a place of its own: what only a 401 needs makes no request's future larger.
            Box::pin(self.once_more(refused, extensions, next))
        };
        again.await
    }
}

/// A 401, and what the request was sent with.
struct Refused {
    response: Response,
    tokens: Arc<Tokens>,
    place: Place,
    /// The request before its first send. `None` if the body can't be sent again.
    spare: Option<Request>,
    /// Where `spare` has still to be given its body.
    fill: Option<ReplayBody>,
    patience: Patience,
}

/// Whether somebody may have answered who did not look at the token.
fn is_busy(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

impl fmt::Debug for ReauthMiddleware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReauthMiddleware").field("session", &self.session).finish()
    }
}

/// A request extension: this request goes without the session's token, and its 401 is its own.
///
/// ```
/// # fn show(client: reqwest_middleware::ClientWithMiddleware) {
/// use reqwest_reauth::NoAuth;
///
/// let request = client.get("https://api.example.com/public").with_extension(NoAuth);
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a marker that callers make")]
pub struct NoAuth;

/// A request extension: fills the body again for the replay, where it can't be cloned (a stream,
/// a multipart form).
///
/// The function gets the request as it was before its first send, headers included, without a
/// body. It can't fail, and what it leaves empty is sent empty: have all that it needs in hand
/// before. Here a stream tells how far an upload has come:
///
/// ```
/// # fn show(client: reqwest_middleware::ClientWithMiddleware, path: &str) -> std::io::Result<()> {
/// use std::convert::Infallible;
/// use std::sync::Arc;
///
/// use futures_util::stream;
/// use reqwest::Body;
/// use reqwest_reauth::ReplayBody;
///
/// let content: Arc<[u8]> = std::fs::read(path)?.into();
/// let body = move || {
///     let content = Arc::clone(&content);
///     let chunks = (0..content.len()).step_by(65_536).map(move |from| {
///         println!("{from} of {} bytes", content.len());
///         let to = content.len().min(from + 65_536);
///         Ok::<_, Infallible>(content[from..to].to_vec())
///     });
///     Body::wrap_stream(stream::iter(chunks))
/// };
/// let request = client
///     .post("https://api.example.com/upload")
///     .body(body())
///     .with_extension(ReplayBody::new(move |request| *request.body_mut() = Some(body())));
/// # Ok(())
/// # }
/// ```
///
/// A multipart form has a new boundary each time, which its `Content-Type` has to name:
///
/// ```
/// use reqwest::Body;
/// use reqwest::header::{CONTENT_TYPE, HeaderValue};
/// use reqwest::multipart::Form;
/// use reqwest_reauth::ReplayBody;
///
/// let replay = ReplayBody::new(|request| {
///     let form = Form::new().text("title", "hello");
///     let kind = format!("multipart/form-data; boundary={}", form.boundary());
///     let kind = HeaderValue::try_from(kind).expect("a boundary is of digits and dashes");
///     request.headers_mut().insert(CONTENT_TYPE, kind);
///     *request.body_mut() = Some(Body::wrap_stream(form.into_stream()));
/// });
/// ```
///
/// reqwest-retry sends no body that can't be cloned, wherever it stands: such a request fails in it
/// before it is sent.
#[derive(Clone)]
pub struct ReplayBody(Arc<dyn Fn(&mut Request) + Send + Sync>);

impl ReplayBody {
    /// Replays with what `fill` puts into the request.
    pub fn new(fill: impl Fn(&mut Request) + Send + Sync + 'static) -> Self {
        Self(Arc::new(fill))
    }

    /// Where `request` could not be cloned: makes `spare` a clone of all but the body, which only the
    /// caller can fill again.
    fn beside(
        spare: &mut Option<Request>,
        request: &mut Request,
        extensions: &Extensions,
    ) -> Option<Self> {
        if spare.is_some() {
            return None;
        }
        let fill = extensions.get::<Self>()?.clone();
        let body = request.body_mut().take();
        *spare = request.try_clone();
        *request.body_mut() = body;
        Some(fill)
    }
}

impl fmt::Debug for ReplayBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplayBody")
    }
}

/// A response extension on a 401: the token was refreshed, but the request's body can't be sent
/// again. The next call will work; [`ReplayBody`] makes this one work too.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NotReplayed;

/// A response extension on a 401: the session has no refresh token, or the token endpoint keeps
/// refusing to refresh for no known reason. Only a new login helps.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LoginRequired;

/// A response extension on a 401: no refresh was made, as the last ones did not help here.
#[derive(Clone, Copy, Debug)]
pub struct RefreshWithheld(Duration);

impl RefreshWithheld {
    /// How long until a 401 may lead to a refresh again.
    pub fn retry_after(&self) -> Duration {
        self.0
    }
}

/// A response extension on a 401: the resource wants the user to log in more strongly
/// (RFC 9470 §3). The session is as good as before.
#[derive(Clone, Debug)]
pub struct StepUpRequired(StepUp);

impl StepUpRequired {
    /// The authentication context classes that would do, to be passed on to the login.
    pub fn acr_values(&self) -> Option<&str> {
        self.0.acr_values.as_deref()
    }

    /// How old the login may be.
    pub fn max_age(&self) -> Option<Duration> {
        self.0.max_age.map(Duration::from_secs)
    }
}

fn marked<T: Clone + Send + Sync + 'static>(mut response: Response, mark: T) -> Response {
    response.extensions_mut().insert(mark);
    response
}

/// The request's own time-out: it counts from here, over all waits and both sends.
struct Patience(Option<tokio::time::Instant>);

impl Patience {
    fn of(request: &Request) -> Self {
        let timeout = request.timeout();
        Self(timeout.and_then(|timeout| tokio::time::Instant::now().checked_add(*timeout)))
    }

    async fn wait<T>(
        &self,
        future: impl Future<Output = std::result::Result<T, Error>>,
    ) -> std::result::Result<T, Error> {
        match self.0 {
            None => future.await,
            Some(end) => (tokio::time::timeout_at(end, future).await)
                .unwrap_or_else(|_| Err(Error::timed_out())),
        }
    }

    fn apply_to(&self, request: &mut Request) {
        if let Some(end) = self.0 {
            *request.timeout_mut() =
                Some(end.saturating_duration_since(tokio::time::Instant::now()));
        }
    }
}
