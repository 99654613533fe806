//! The pages that a person sees at a login.

use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};

use crate::answer::Answer;

/// A page with a title and a body of HTML.
pub(crate) fn page(status: StatusCode, title: &str, body: &str) -> Answer {
    let mut answer = Answer::new(status)
        .with(CONTENT_TYPE, "text/html; charset=utf-8")
        .with(CACHE_CONTROL, "no-store")
        .with(CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'")
        .noting(title);
    answer.body = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n\
         </body>\n</html>\n",
        title = escape(title)
    )
    .into();
    answer
}

/// The form in which a person says who they are, and yes or no. `fields` are its first ones.
pub(crate) fn decision(title: &str, fields: &str) -> Answer {
    let body = format!(
        "<form method=\"post\">\n{fields}\
         <label for=\"username\">User name</label>\n\
         <input id=\"username\" name=\"username\" value=\"alice\" autocomplete=\"username\" \
         autocapitalize=\"none\" spellcheck=\"false\" required>\n\
         <p>Any name will do: this server is for tests.</p>\n<div>\n\
         <button id=\"allow\" name=\"decision\" value=\"allow\">Allow</button>\n\
         <button id=\"deny\" name=\"decision\" value=\"deny\" formnovalidate>Deny</button>\n\
         </div>\n</form>"
    );
    page(StatusCode::OK, title, &body)
}

/// The end of a login that can't go back to its client.
pub(crate) fn error(why: &str) -> Answer {
    let body = format!("<p>What is wrong: {}.</p>", escape(why));
    page(StatusCode::BAD_REQUEST, "This login can’t go on", &body).noting(why)
}

/// As text and in a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8888;--accent:#2457c5}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;padding:1rem;display:grid;place-items:center;\
font:1rem/1.5 system-ui,sans-serif}\
main{width:100%;max-width:24rem;padding:2rem;border:1px solid var(--line);border-radius:.75rem}\
h1{font-size:1.4rem;line-height:1.25;margin:0 0 1.25rem;overflow-wrap:anywhere}\
p{margin:0 0 1.25rem;opacity:.75}p:last-child{margin:0}\
label{display:block;font-weight:600}\
input{width:100%;margin:.25rem 0 1rem;padding:.5rem .75rem;font:inherit;\
border:1px solid var(--line);border-radius:.4rem}\
div{display:flex;gap:.75rem}\
button{flex:1;padding:.6rem;font:inherit;font-weight:600;border:1px solid var(--line);\
border-radius:.4rem;cursor:pointer}\
#allow{background:var(--accent);border-color:var(--accent);color:#fff}\
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}";
