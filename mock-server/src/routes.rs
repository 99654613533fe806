//! The way of a request: recorded, parked, broken, handled, answered.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::answer::{Answer, AnswerBody, Dropped};
use crate::fault::Fault;
use crate::hold::Gate;
use crate::route::{Recorded, Route};
use crate::state::Shared;

mod api;
mod authorize;
mod code;
mod control;
mod device;
mod json;
mod metadata;
mod token;

/// A request whose body has been read.
pub(crate) struct Received {
    head: Parts,
    body: Bytes,
}

impl Received {
    fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The value of a parameter in the query.
    fn query(&self, name: &str) -> Option<String> {
        let query = self.head.uri.query().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    fn content_type_is(&self, expected: &str) -> bool {
        let value = self.head.headers.get(http::header::CONTENT_TYPE);
        let value = value.and_then(|value| value.to_str().ok()).unwrap_or("");
        let essence = value.split(';').next().unwrap_or("").trim();
        essence.eq_ignore_ascii_case(expected)
    }
}

/// Answers a request, and notes a panic for the end of the server.
///
/// In a task of its own: what a server has received it handles, even if the caller hangs up.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    local: bool,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Dropped> {
    let task = tokio::spawn(async move {
        let mut answer = pin!(answer(&shared, local, request));
        let caught = poll_fn(|cx| {
            let polled = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx)));
            polled.map_or_else(|panic| Poll::Ready(Err(panic)), |polled| polled.map(Ok))
        });
        caught.await.unwrap_or_else(|panic| {
            // Only the first is told; the others often follow from it.
            let _ = shared.panicked.set(message(&*panic));
            Err(Dropped)
        })
    });
    task.await.unwrap_or(Err(Dropped))
}

async fn answer(
    shared: &Shared,
    local: bool,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Dropped> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Dropped)?.to_bytes();
    let request = Received { head, body };
    let Some(route) = Route::of(request.path()) else {
        let answer = elsewhere(shared, local, &request);
        shared.log(&request, answer.status.as_str(), &answer.note);
        return Ok(answer.into_response(false));
    };

    let arrival = arrive(shared, route, &request);
    for gate in arrival.gates {
        gate.pass().await;
    }
    let mut answer = match &arrival.fault {
        Some(Fault::DropBefore) => {
            shared.log(&request, "closed", "before it was handled");
            return Err(Dropped);
        }
        Some(Fault::Respond { status, headers, body, delay }) => {
            Answer { delay: *delay, ..respond(*status, headers, body) }
        }
        _ => handle(shared, route, &request),
    };

    let gates = shared.lock().lane(route).answer_holds();
    for gate in gates {
        gate.pass().await;
    }
    let mut halved = false;
    match arrival.fault {
        Some(Fault::Delay(time)) => answer.delay += time,
        Some(Fault::Rewrite(alter)) => answer.rewrite(&*alter),
        Some(Fault::DropHalf) => {
            halved = true;
            answer.note += " (closed halfway)";
        }
        Some(Fault::DropAfter) => {
            let note = format!("after it was handled with {}: {}", answer.status, answer.note);
            shared.log(&request, "closed", &note);
            return Err(Dropped);
        }
        _ => {}
    }
    if !answer.delay.is_zero() {
        tokio::time::sleep(answer.delay).await;
    }
    let status = answer.status.as_u16();
    shared.lock().lane(route).answered(arrival.record, status);
    shared.log(&request, answer.status.as_str(), &answer.note);
    Ok(answer.into_response(halved))
}

/// What was in store for a request when it came.
struct Arrival {
    record: usize,
    gates: Vec<Arc<Gate>>,
    fault: Option<Fault>,
}

fn arrive(shared: &Shared, route: Route, request: &Received) -> Arrival {
    let mut state = shared.lock();
    match route {
        Route::Token | Route::RefreshJson => state.counters.token_requests += 1,
        Route::Api => state.counters.api_requests += 1,
        _ => {}
    }
    let uri = &request.head.uri;
    let lane = state.lane(route);
    let record = lane.record(Recorded {
        method: request.head.method.clone(),
        path_and_query: uri.path_and_query().map_or("/", |it| it.as_str()).to_owned(),
        headers: request.head.headers.clone(),
        body: request.body.clone(),
        status: None,
    });
    let mut gates = lane.holds();
    gates.extend(lane.take_barrier());
    let fault = lane.take_fault();
    state.counters.faults += u64::from(fault.is_some());
    Arrival { record, gates, fault }
}

fn handle(shared: &Shared, route: Route, request: &Received) -> Answer {
    match route {
        Route::Token => token::token(shared, request),
        Route::Revoke => token::revoke(shared, request),
        Route::RefreshJson => json::refresh(shared, request),
        Route::Login => json::log_in(shared, request),
        Route::Metadata => metadata::metadata(shared, request),
        Route::Authorize => authorize::authorize(shared, request),
        Route::DeviceAuthorization => device::begin(shared, request),
        Route::Device => device::page(shared, request),
        Route::Api => {
            let answer = api::api(shared, request);
            let counters = &mut shared.lock().counters;
            counters.api_ok += u64::from(answer.status.is_success());
            counters.api_unauthorized += u64::from(answer.status == StatusCode::UNAUTHORIZED);
            answer
        }
    }
}

/// # Panics
///
/// If the test asked for what HTTP cannot say.
fn respond(status: u16, headers: &[(String, String)], body: &str) -> Answer {
    let Ok(status) = StatusCode::from_u16(status) else {
        panic!("not a status: {status}");
    };
    let mut answer = Answer::new(status).noting("on demand");
    for (name, value) in headers {
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
        else {
            panic!("not a header: {name:?}: {value:?}");
        };
        answer.headers.append(name, value);
    }
    answer.body = body.to_owned().into();
    answer
}

fn elsewhere(shared: &Shared, local: bool, request: &Received) -> Answer {
    if let Some(control) = request.path().strip_prefix("/control/") {
        if !local {
            return Answer::text(StatusCode::FORBIDDEN, "controls are for this machine only\n");
        }
        return control::control(shared, control, request);
    }
    match request.path() {
        "/" if request.head.method == Method::GET => Answer::text(StatusCode::OK, INDEX),
        "/" => Answer::method_not_allowed("GET"),
        _ => Answer::text(StatusCode::NOT_FOUND, "no such route; GET / lists them\n"),
    }
}

impl Shared {
    /// The path without its query, which may hold anything.
    fn log(&self, request: &Received, status: &str, note: &str) {
        let Some(log) = &self.config.log else { return };
        let at = Instant::now().duration_since(self.started).as_secs_f64();
        let (method, path) = (&request.head.method, request.path());
        let line = format!("{at:9.3}s {method} {path} {status} {note}");
        (log.0)(line.trim_end());
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(no message)").to_owned()
}

const INDEX: &str = "\
An OAuth 2 authorization server and a protected API to test clients against.

POST /token                grant_type=refresh_token&refresh_token=...   (RFC 6749)
                           grant_type=password&username=alice           (any password)
                           grant_type=authorization_code&code=...       (with PKCE)
                           grant_type=urn:ietf:params:oauth:grant-type:device_code&device_code=...
GET  /.well-known/oauth-authorization-server                            (RFC 8414)
GET  /.well-known/openid-configuration
GET  /authorize            the login page, for a browser                (RFC 6749, RFC 7636)
POST /device_authorization client_id=...                                (RFC 8628)
GET  /device               the page for its code, for a browser
POST /revoke               token=...                                    (RFC 7009)
POST /login                {\"username\":\"alice\"}
POST /refresh-token        {\"refreshToken\":\"...\"}

ANY  /api/...              with a bearer token: says what arrived
ANY  /api/status/418       that status
ANY  /api/slow?ms=N        that much later
ANY  /api/redirect?to=URL  307, with or without a token
ANY  /api/insufficient-scope                403
ANY  /api/step-up                           401 insufficient_user_authentication
ANY  /api/challenge?value=WWW-AUTHENTICATE  401 with that challenge, whatever the token
ANY  /api/no-challenge                      401 without any, whatever the token

GET  /control/counters
GET  /control/history
POST /control/expire-access
POST /control/expire-refresh
POST /control/revoke?user=alice
POST /control/approve-device?user_code=WDJB-MJHT&user=alice
POST /control/deny-device?user_code=WDJB-MJHT
POST /control/fail?route=token&count=1&status=503[&retry_after=2]
POST /control/drop?route=token&count=1&when=before|after|half
POST /control/delay?route=token&count=1&ms=500

Routes by name: token, refresh-token, revoke, login, api, metadata, authorize,
device-authorization, device.
";
