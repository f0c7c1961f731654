//! The API for backfill: bounded answers in JSON.

use crate::history::{EventQuery, HistoryError};
use crate::protocol::{DevicePage, EventPage, Summary};
use crate::server::Context;
use crate::view::{RAW_IN_API, event_view};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reason::Reason;
use tidegate_store::event::Outcome;

/// Events in one answer: as many as asked for, at most [`MAX_EVENTS`].
const DEFAULT_EVENTS: u32 = 100;
const MAX_EVENTS: u32 = 1_000;
/// Devices in one answer.
const DEFAULT_DEVICES: u32 = 100;
const MAX_DEVICES: u32 = 1_000;

/// The parameters of `/api/v1/events`, all of them optional.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventParameters {
    limit: Option<u32>,
    before: Option<i64>,
    after: Option<i64>,
    outcome: Option<String>,
    reason: Option<String>,
    device: Option<String>,
}

/// The parameters of `/api/v1/devices`, all of them optional.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceParameters {
    limit: Option<u32>,
    offset: Option<u32>,
}

/// A refused question, as JSON.
pub(crate) struct ApiError(StatusCode, String);

/// `/api/v1/summary`.
pub(crate) async fn summary(State(context): State<Context>) -> Json<Summary> {
    Json(context.hub.summary())
}

/// `/api/v1/events`: newest first.
pub(crate) async fn events(
    State(context): State<Context>,
    parameters: Result<Query<EventParameters>, QueryRejection>,
) -> Result<Json<EventPage>, ApiError> {
    let query = parameters?.0.query()?;
    let limit = query.limit as usize;
    let events = context.history.events(query).await?;
    let next_before = events
        .last()
        .filter(|_| events.len() == limit)
        .map(|event| event.id);
    let events = events.iter().map(|event| event_view(event, RAW_IN_API)).collect();
    Ok(Json(EventPage { events, next_before }))
}

/// `/api/v1/devices`: in the registry's order.
pub(crate) async fn devices(
    State(context): State<Context>,
    parameters: Result<Query<DeviceParameters>, QueryRejection>,
) -> Result<Json<DevicePage>, ApiError> {
    let Query(DeviceParameters { limit, offset }) = parameters?;
    let limit = limit.unwrap_or(DEFAULT_DEVICES).clamp(1, MAX_DEVICES);
    Ok(Json(context.hub.devices(offset.unwrap_or(0), limit)))
}

/// `/healthz`: the server runs.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// `/readyz`: the database answers too, and can be written, so that messages are accepted.
pub(crate) async fn readyz(State(context): State<Context>) -> Response {
    if !context.hub.is_storage_available() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the database cannot be written\n",
        )
            .into_response();
    }
    match context
        .history
        .events(EventQuery {
            limit: 1,
            ..EventQuery::default()
        })
        .await
    {
        Ok(_) => "ready\n".into_response(),
        Err(error) => {
            tracing::warn!(%error, "not ready: the database does not answer");
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n").into_response()
        }
    }
}

impl EventParameters {
    fn query(self) -> Result<EventQuery, ApiError> {
        let Self {
            limit,
            before,
            after,
            outcome,
            reason,
            device,
        } = self;
        Ok(EventQuery {
            limit: limit.unwrap_or(DEFAULT_EVENTS).clamp(1, MAX_EVENTS),
            before,
            after,
            outcome: parsed("outcome", outcome, |name| match name {
                "flagged" => Some(Outcome::Flagged),
                "blocked" => Some(Outcome::Blocked),
                "notice" => Some(Outcome::Notice),
                _ => None,
            })?,
            reason: parsed("reason", reason, Reason::from_name)?,
            device: parsed("device", device, |name| DeviceId::new(name).ok())?,
        })
    }
}

fn parsed<T>(
    name: &str,
    value: Option<String>,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    match parse(&value) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(ApiError(
            StatusCode::BAD_REQUEST,
            format!("{value:.60?} is not a known {name}"),
        )),
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        // What went wrong inside is for the log, not for the network.
        tracing::warn!(%error, "cannot answer from the database");
        Self(
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer".to_owned(),
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}
