//! The controls over HTTP, for people with curl.

use std::str::FromStr;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Received;
use crate::answer::Answer;
use crate::device::Decision;
use crate::family::Family;
use crate::fault::Fault;
use crate::route::Route;
use crate::state::Shared;

/// `/control/…`.
pub(super) fn control(shared: &Shared, control: &str, request: &Received) -> Answer {
    let expected = match control {
        "counters" | "history" => Method::GET,
        _ => Method::POST,
    };
    if request.head.method != expected {
        let allowed = if expected == Method::GET { "GET" } else { "POST" };
        return Answer::method_not_allowed(allowed);
    }
    let now = Instant::now();
    match control {
        "counters" => {
            let counters = shared.lock().counters;
            Answer::json(StatusCode::OK, &json!(counters))
        }
        "history" => {
            let state = shared.lock();
            let lines = state.grants.families().iter().map(line);
            Answer::text(StatusCode::OK, lines.collect::<String>())
        }
        "expire-access" => {
            shared.lock().grants.expire_access(now);
            done("all access tokens are expired")
        }
        "expire-refresh" => {
            shared.lock().grants.expire_refresh(now);
            done("all refresh tokens are expired")
        }
        "revoke" => match request.query("user") {
            Some(user) => {
                let mut state = shared.lock();
                let revoked = state.grants.revoke_user(&user, now);
                state.counters.revocations += revoked;
                done(&format!("{revoked} families are revoked"))
            }
            None => refused("say who: ?user=NAME"),
        },
        "approve-device" | "deny-device" => {
            let Some(user_code) = request.query("user_code") else {
                return refused("say which: ?user_code=CODE");
            };
            let user = request.query("user").unwrap_or_else(|| "alice".to_owned());
            let decision = match control {
                "approve-device" => Decision::Allowed(user),
                _ => Decision::Denied,
            };
            match shared.lock().devices.decide(&user_code, decision, now) {
                true => done("decided"),
                false => refused("no device waits with that code"),
            }
        }
        "fail" | "drop" | "delay" => match fault(control, request) {
            Ok((route, count, fault)) => {
                shared.lock().lane(route).push_fault(count, fault.clone());
                done(&format!("{fault:?} for the next {count} on {route}"))
            }
            Err(message) => refused(&message),
        },
        _ => Answer::text(StatusCode::NOT_FOUND, "no such control; GET / lists them\n"),
    }
}

fn line(family: &Family) -> String {
    let entry = |entry: &crate::history::Entry| {
        json!({
            "what": entry.what,
            "at_ms": entry.at.as_millis() as u64,
            "generation": entry.generation,
        })
    };
    let line: Value = json!({
        "family": family.id,
        "user": family.user,
        "alive": family.alive,
        "history": family.history.iter().map(entry).collect::<Vec<_>>(),
    });
    format!("{line}\n")
}

fn fault(control: &str, request: &Received) -> Result<(Route, usize, Fault), String> {
    let route: Route = parameter(request, "route", Some("token"))?;
    let count = parameter(request, "count", Some("1"))?;
    let fault = match control {
        "fail" => {
            let status = parameter(request, "status", Some("503"))?;
            if !(200..600).contains(&status) {
                return Err("status is not in 200 to 599".into());
            }
            let fault = Fault::status(status);
            match request.query("retry_after") {
                Some(_) => {
                    let seconds: u64 = parameter(request, "retry_after", None)?;
                    fault.header("retry-after", seconds.to_string())
                }
                None => fault,
            }
        }
        "drop" => match request.query("when").as_deref() {
            Some("before") | None => Fault::DropBefore,
            Some("after") => Fault::DropAfter,
            Some("half") => Fault::DropHalf,
            Some(_) => return Err("when is not one of before, after, half".into()),
        },
        _ => Fault::Delay(Duration::from_millis(parameter(request, "ms", None)?)),
    };
    Ok((route, count, fault))
}

fn parameter<T: FromStr>(
    request: &Received,
    name: &str,
    default: Option<&str>,
) -> Result<T, String> {
    let value = request
        .query(name)
        .or_else(|| default.map(str::to_owned))
        .ok_or_else(|| format!("{name} is missing"))?;
    value.parse().map_err(|_| format!("{name} cannot be {value:?}"))
}

fn done(message: &str) -> Answer {
    Answer::text(StatusCode::OK, format!("{message}\n")).noting(message)
}

fn refused(message: &str) -> Answer {
    Answer::text(StatusCode::BAD_REQUEST, format!("{message}\n")).noting(message)
}
