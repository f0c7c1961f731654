//! The built page inside the binary: which file answers which path, and how long it may be kept.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};
use std::fmt::Write;

/// What `npm run build` wrote; `build.rs` puts a placeholder there when nobody ran it.
#[derive(RustEmbed)]
#[folder = "../../web/dist"]
struct Page;

/// Files here carry a hash of their content in their names, so a browser may keep them for ever.
const HASHED: &str = "assets/";
/// Encodings of precompressed files, the better one first.
const ENCODINGS: [(&str, &str); 2] = [("br", "br"), ("gzip", "gz")];

/// `/` and `/dashboard`.
pub(crate) async fn index(headers: HeaderMap) -> Response {
    answer("index.html", &headers)
}

/// Every other file, by its exact name in the binary. There is no file system behind it that a
/// path could climb.
pub(crate) async fn asset(request: Request) -> Response {
    answer(request.uri().path().trim_start_matches('/'), request.headers())
}

fn answer(name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = Page::get(name).filter(|_| !is_compressed(name)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kind = content_type(&file);
    let (file, encoding) = compressed(name, headers).map_or((file, None), |(file, name)| (file, Some(name)));
    let tag = entity_tag(&file);
    let unchanged = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::new(Body::from(file.data))
    };
    let keep = if name.starts_with(HASHED) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    if let Ok(kind) = HeaderValue::try_from(kind) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

fn content_type(file: &EmbeddedFile) -> String {
    let kind = file.metadata.mimetype();
    let is_text = kind.starts_with("text/") || matches!(kind, "application/json" | "image/svg+xml");
    if is_text {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_owned()
    }
}

/// The precompressed neighbour of a file, where there is one that the browser takes.
fn compressed(name: &str, headers: &HeaderMap) -> Option<(EmbeddedFile, &'static str)> {
    let accepted = headers.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
    let takes = |encoding| {
        accepted.split(',').any(|item| {
            let mut parts = item.split(';').map(str::trim);
            parts.next() == Some(encoding) && !parts.any(|part| part == "q=0")
        })
    };
    let mut encodings = ENCODINGS.into_iter().filter(|(encoding, _)| takes(encoding));
    encodings.find_map(|(encoding, ending)| Some((Page::get(&format!("{name}.{ending}"))?, encoding)))
}

fn is_compressed(name: &str) -> bool {
    ENCODINGS
        .iter()
        .any(|(_, ending)| name.rsplit_once('.').is_some_and(|(_, last)| last == *ending))
}

/// The start of the content's SHA-256, quoted (RFC 9110 §8.8.3).
fn entity_tag(file: &EmbeddedFile) -> String {
    let mut tag = String::from("\"");
    for byte in &file.metadata.sha256_hash()[..12] {
        // Writing to a string cannot fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}
