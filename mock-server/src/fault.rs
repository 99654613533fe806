//! What can go wrong on purpose.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// Something that goes wrong with a request; see [`MockServer::on_next`](crate::MockServer::on_next).
///
/// ```
/// use mock_server::Fault;
///
/// let overloaded = Fault::status(503).header("retry-after", "2").body("try later");
/// let quirky = Fault::rewrite(|answer| answer["token_type"] = "bearer".into());
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Fault {
    /// This is answered, and the request is not handled: nothing is rotated or counted as success.
    Respond {
        /// The status, 200 to 599.
        status: u16,
        /// The headers, besides those of the transfer itself.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
        /// How much later.
        delay: Duration,
    },
    /// The request is read, then the connection is closed. Nothing is handled.
    DropBefore,
    /// The request is handled, then the connection is closed without a byte of answer.
    DropAfter,
    /// The request is handled; the head and half of the body are sent, then the connection is closed.
    DropHalf,
    /// The request is handled at once, and the answer sent after this time.
    Delay(Duration),
    /// The request is handled, and its answer altered, if it is JSON.
    Rewrite(Arc<dyn Fn(&mut Value) + Send + Sync>),
}

impl Fault {
    /// A [`Fault::Respond`] with this status, no headers and no body.
    ///
    /// # Panics
    ///
    /// If the status is not in 200 to 599.
    pub fn status(status: u16) -> Self {
        assert!((200..600).contains(&status), "not the status of an answer: {status}");
        let (headers, body, delay) = (Vec::new(), String::new(), Duration::ZERO);
        Self::Respond { status, headers, body, delay }
    }

    /// Adds a header to a [`Fault::Respond`].
    ///
    /// # Panics
    ///
    /// If this is another kind of fault.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let Self::Respond { headers, .. } = &mut self else {
            panic!("only Fault::Respond has headers, not {self:?}");
        };
        headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body of a [`Fault::Respond`].
    ///
    /// # Panics
    ///
    /// If this is another kind of fault.
    #[must_use]
    pub fn body(mut self, text: impl Into<String>) -> Self {
        let Self::Respond { body, .. } = &mut self else {
            panic!("only Fault::Respond has a body, not {self:?}");
        };
        *body = text.into();
        self
    }

    /// Sends a [`Fault::Respond`] this much later.
    ///
    /// # Panics
    ///
    /// If this is another kind of fault.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        let Self::Respond { delay, .. } = &mut self else {
            panic!("only Fault::Respond takes its time, not {self:?}; there is Fault::Delay");
        };
        *delay = time;
        self
    }

    /// Sets the body of a [`Fault::Respond`] to JSON, along with its content type.
    ///
    /// # Panics
    ///
    /// If this is another kind of fault.
    #[must_use]
    pub fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json").body(value.to_string())
    }

    /// A [`Fault::Rewrite`] with this function.
    pub fn rewrite(alter: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self::Rewrite(Arc::new(alter))
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Respond { status, .. } => write!(f, "Respond({status})"),
            Self::DropBefore => f.write_str("DropBefore"),
            Self::DropAfter => f.write_str("DropAfter"),
            Self::DropHalf => f.write_str("DropHalf"),
            Self::Delay(time) => write!(f, "Delay({time:?})"),
            Self::Rewrite(_) => f.write_str("Rewrite"),
        }
    }
}
