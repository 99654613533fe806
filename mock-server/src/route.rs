//! The routes a test can break, hold and read.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use http::{HeaderMap, Method};

/// A route that faults, holds and recordings are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Route {
    /// `/token`: the token endpoint of RFC 6749.
    Token,
    /// `/refresh-token`: a refresh in the JSON style of many home-grown APIs.
    RefreshJson,
    /// `/revoke`: the revocation endpoint of RFC 7009.
    Revoke,
    /// `/login`: a login in the JSON style of many home-grown APIs.
    Login,
    /// `/api/…`: the protected API.
    Api,
    /// `/.well-known/…`: what the server says of itself (RFC 8414).
    Metadata,
    /// `/authorize`: the login page.
    Authorize,
    /// `/device_authorization`: the beginning of a login on another device (RFC 8628).
    DeviceAuthorization,
    /// `/device`: the page for that.
    Device,
}

impl Route {
    pub(crate) const COUNT: usize = Self::ALL.len();

    const ALL: [Self; 9] = [
        Self::Token,
        Self::RefreshJson,
        Self::Revoke,
        Self::Login,
        Self::Api,
        Self::Metadata,
        Self::Authorize,
        Self::DeviceAuthorization,
        Self::Device,
    ];

    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            "/token" => Some(Self::Token),
            "/refresh-token" => Some(Self::RefreshJson),
            "/revoke" => Some(Self::Revoke),
            "/login" => Some(Self::Login),
            "/api" => Some(Self::Api),
            "/.well-known/oauth-authorization-server" | "/.well-known/openid-configuration" => {
                Some(Self::Metadata)
            }
            "/authorize" => Some(Self::Authorize),
            "/device_authorization" => Some(Self::DeviceAuthorization),
            "/device" => Some(Self::Device),
            _ => path.starts_with("/api/").then_some(Self::Api),
        }
    }
}

/// The name that control requests use, such as `token` or `refresh-token`.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "token",
            Self::RefreshJson => "refresh-token",
            Self::Revoke => "revoke",
            Self::Login => "login",
            Self::Api => "api",
            Self::Metadata => "metadata",
            Self::Authorize => "authorize",
            Self::DeviceAuthorization => "device-authorization",
            Self::Device => "device",
        })
    }
}

/// The inverse of `Display`.
impl FromStr for Route {
    type Err = UnknownRoute;

    fn from_str(name: &str) -> Result<Self, UnknownRoute> {
        Self::ALL.into_iter().find(|route| route.to_string() == name).ok_or(UnknownRoute)
    }
}

/// A name that is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRoute;

impl fmt::Display for UnknownRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Route::ALL.map(|route| route.to_string()).join(", ");
        write!(f, "route is not one of {names}")
    }
}

impl std::error::Error for UnknownRoute {}

/// A request the server saw, whatever became of it.
///
/// Its `Debug` leaves out headers and body, where tokens are.
#[derive(Clone)]
#[non_exhaustive]
pub struct Recorded {
    /// The method.
    pub method: Method,
    /// The path with its query, as sent.
    pub path_and_query: String,
    /// All headers, as sent.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The status that was answered.
    ///
    /// `None` while the request is parked or under way, and for good if its connection was
    /// closed without an answer.
    pub status: Option<u16>,
}

impl Recorded {
    /// The value of a header, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded")
            .field("method", &self.method)
            .field("path_and_query", &self.path_and_query)
            .field("body_len", &self.body.len())
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
