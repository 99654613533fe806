//! What goes back to the client, including how little of it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, PRAGMA, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use serde_json::{Value, json};

/// An answer, before it is sent.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) delay: Duration,
    /// What the log says about it. Never a token.
    pub(crate) note: String,
}

impl Answer {
    pub(crate) fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            delay: Duration::ZERO,
            note: String::new(),
        }
    }

    pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Self {
        let mut answer = Self::new(status).with(CONTENT_TYPE, "text/plain; charset=utf-8");
        answer.body = text.into().into();
        answer
    }

    pub(crate) fn json(status: StatusCode, value: &Value) -> Self {
        let mut answer = Self::new(status).with(CONTENT_TYPE, "application/json");
        answer.body = value.to_string().into();
        answer
    }

    /// An error of RFC 6749 §5.2.
    pub(crate) fn oauth_error(status: StatusCode, error: &str, description: &str) -> Self {
        Self::json(status, &json!({"error": error, "error_description": description}))
            .uncached()
            .noting(format!("{error}: {description}"))
    }

    /// An error of RFC 6750 §3.
    pub(crate) fn challenge(status: StatusCode, challenge: &str) -> Self {
        Self::json(status, &json!({"error": status.canonical_reason()}))
            .with(WWW_AUTHENTICATE, challenge)
    }

    pub(crate) fn method_not_allowed(allowed: &'static str) -> Self {
        Self::text(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed} here\n"))
            .with(http::header::ALLOW, allowed)
    }

    /// Adds a header; one that cannot be sent is replaced by a placeholder.
    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        let value = HeaderValue::from_str(value)
            .unwrap_or_else(|_| HeaderValue::from_static("(not a header value)"));
        self.headers.append(name, value);
        self
    }

    /// RFC 6749 §5.1 wants both headers.
    pub(crate) fn uncached(self) -> Self {
        self.with(CACHE_CONTROL, "no-store").with(PRAGMA, "no-cache")
    }

    pub(crate) fn noting(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    pub(crate) fn rewrite(&mut self, alter: &dyn Fn(&mut Value)) {
        if let Ok(mut value) = serde_json::from_slice(&self.body) {
            alter(&mut value);
            self.body = value.to_string().into();
        }
    }

    /// The response; a halved one ends its connection in the middle of the body.
    pub(crate) fn into_response(self, halved: bool) -> Response<AnswerBody> {
        let total = self.body.len();
        let sent = if halved { total / 2 } else { total };
        let mut response = Response::new(AnswerBody {
            total: total as u64,
            data: Some(self.body.slice(..sent)),
            state: if halved { Tail::Flush } else { Tail::End },
        });
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

pub(crate) struct AnswerBody {
    total: u64,
    data: Option<Bytes>,
    state: Tail,
}

enum Tail {
    End,
    /// Lets the connection flush what it has before it is torn down.
    Flush,
    Break,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        if let Some(data) = self.data.take().filter(|data| !data.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match self.state {
            Tail::End => Poll::Ready(None),
            Tail::Flush => {
                self.state = Tail::Break;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Tail::Break => Poll::Ready(Some(Err(Dropped))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, Tail::End) && self.data.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.total)
    }
}

/// Makes hyper close the connection as it is.
#[derive(Debug)]
pub(crate) struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is closed on purpose")
    }
}

impl std::error::Error for Dropped {}
