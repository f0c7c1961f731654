// Written by tidegate-serve from src/protocol.rs; do not edit.
// To write it anew: make protocol

/** One text frame of the page's stream. */
export type ServerMessage = { "type": "hello" } & Hello | { "type": "frame" } & Frame;

/** The whole state, as of one moment. */
export type Hello = {
/** The protocol's version. */
version: number,
/** How much protection is on: plain, tls, mtls, signed, dashboard or ai. */
level: string,
/** Whether the devices are simulated. */
demo: boolean,
/** The name of the place. */
site: string,
/** The server's clock now. */
server_time_ms: number,
/** When the server started. */
started_ms: number,
/** The defence layers, in the order in which a message meets them. */
layers: Array<LayerView>,
/** The zones, in the registry's order. */
zones: Array<ZoneView>,
/** Counts since the database began. */
totals: Totals,
/** The last 120 seconds, oldest first, without holes. */
seconds: Array<SecondView>,
/** Recent events, newest last: with `?after=`, all that came after that event and are still at hand. */
events: Array<EventView>,
/** At most so many events after `?after=` are not in `events`, because they were too many to
 * send at once; `/api/v1/events` has them. */
missed: number,
/** The last event id so far. Pass the last one that you have as `?after=` when you connect again. */
resume_from: number,
/** How many devices are registered. */
device_count: number,
/** Whether readings arrive without a signature at this level. */
unprotected: boolean,
/** Lasting warnings for everybody who looks, such as a legacy secret in use. */
notes: Array<string>,
/** Certificates, sessions, revocation lists and alarms. */
identity: IdentityView, };

/** What changed within 100 ms. */
export type Frame = {
/** The server's clock. */
t_ms: number,
/** Accepted messages per second, flagged ones included, over the last few seconds. */
rate: number,
/** The longest time from a message's arrival to here among this frame's messages. */
behind_ms: number,
/** Counts since the database began. */
totals: Totals,
/** The seconds whose counts changed, oldest first; the last one is still running. */
seconds: Array<SecondView>,
/** The zones that changed, whole. */
zones: Array<ZoneView>,
/** The layers that stopped something. */
layers: Array<LayerCount>,
/** Flagged, blocked and got-in events and notices, their ids ascending from frame to frame,
 * and a sample of accepted readings. */
events: Array<EventView>,
/** Flagged, blocked and notice events left out of `events` because they were too many;
 * `/api/v1/events` has them. */
dropped: number,
/** What changed of certificates, sessions, revocation lists and alarms; null where nothing did. */
identity: IdentityChange | null, };

/** Messages and connections by what became of them. */
export type Totals = {
/** Accepted and not flagged. */
accepted: number,
/** Accepted, but unlike the device's normal behaviour. */
flagged: number,
/** Refused. */
blocked: number,
/** Attacks among the accepted, let in because a layer is off. Always 0 when all are on. */
got_in: number, };

/** The counts of one second. */
export type SecondView = {
/** The second, since 1970. */
t: number,
/** Accepted and not flagged. */
accepted: number,
/** Accepted, but unlike the device's normal behaviour. */
flagged: number,
/** Refused. */
blocked: number,
/** Attacks among the accepted. */
got_in: number, };

/** One defence layer. */
export type LayerView = {
/** Its name for programs, such as `signature`. */
id: string,
/** Its name for people. */
name: string,
/** What it stops, in one sentence. */
explains: string,
/** Whether it is on at this level. */
on: boolean,
/** How much it stopped since the server started. */
stopped: number, };

/** A layer's new count. */
export type LayerCount = {
/** Its name for programs. */
id: string,
/** How much it stopped since the server started. */
stopped: number, };

/** How a zone is. */
export type ZoneStatus = "normal" | "attention" | "attack" | "silent" | "waiting";

/** A zone of the building. */
export type ZoneView = {
/** Its id in the registry. */
id: string,
/** Its name for people. */
name: string,
/** How many devices are registered in it. */
devices: number,
/** How many of them sent a reading within the last 30 seconds. */
active: number,
/** How it is. */
status: ZoneStatus,
/** The same in words. */
sentence: string,
/** The mean of the active devices' latest readings, by channel. */
channels: Record<string, ChannelView>,
/** Accepted and not flagged within the last minute. */
accepted: number,
/** Flagged within the last minute. */
flagged: number,
/** Blocked within the last minute. */
blocked: number, };

/** A value with its unit. */
export type ChannelView = {
/** The value. */
value: number,
/** `PSI`, `L/min` or `%`; empty where none is known. */
unit: string, };

/** What became of a message or a connection. */
export type EventOutcome = "accepted" | "flagged" | "blocked" | "notice";

/** One event. All texts are plain text, cleaned of control characters, and never markup. */
export type EventView = {
/** Its number, ascending; 0 for accepted readings, which are not numbered. */
id: number,
/** When the server received it. */
t_ms: number,
/** What became of it. */
outcome: EventOutcome,
/** An attack that was accepted because the layer that stops it is off. */
got_in: boolean,
/** The first failing check, such as `bad_mac`; empty where nothing is wrong. */
reason: string,
/** Further checks that fail too. */
also: Array<string>,
/** What happened, as a sentence for people. */
sentence: string,
/** What exactly was wrong; empty where the sentence says it all. */
detail: string,
/** The device, where known. */
device: string | null,
/** The zone, where known. */
zone: string | null,
/** The MQTT topic, where there is one. */
topic: string | null,
/** Who sent it: client id and address, where known. */
source: string | null,
/** The message's sequence number. */
sequence: number | null,
/** The forest's score: below 0 is flagged, lower is more anomalous. */
score: number | null,
/** The reading's values by channel; empty where nothing was accepted. */
channels: Record<string, number>,
/** The layer that stopped or flagged it, by id. */
layer: string | null,
/** The start of the raw message, with what is not text replaced. */
raw: string | null,
/** Whether the reading was protected by a signature. */
protected: boolean,
/** What would have been normal, where detection says so. */
expected: string | null, };

/** All of it, as of one moment. */
export type IdentityView = {
/** The certificates; null where the program keeps no account of them. */
certificates: CertificatesView | null,
/** The connected clients; null where another broker has them. */
sessions: SessionsView | null,
/** The revocation lists; null where certificates are not checked. */
revocation: RevocationView | null,
/** What needs somebody, the most urgent first, at most 20. */
alarms: Array<Alarm>, };

/** What changed of it, each whole; null where nothing did. */
export type IdentityChange = {
/** The certificates. */
certificates: CertificatesView | null,
/** The connected clients. */
sessions: SessionsView | null,
/** The revocation lists. */
revocation: RevocationView | null,
/** What needs somebody. */
alarms: Array<Alarm> | null, };

/** The certificates: at most 1,000 of them, those first that matter most. */
export type CertificatesView = {
/** Expired and expiring ones, valid ones, then revoked and superseded ones; within each, the
 * one that ends first comes first. */
rows: Array<CertificateRow>,
/** How many there are in all, those left out included. */
counts: CertificateCounts,
/** How many are not in `rows`; `tidegate certs list` has them. */
left_out: number, };

/** Certificates by how they stand. */
export type CertificateCounts = {
/** In force, and not close to their end. */
valid: number,
/** In force, and close to their end. */
expiring: number,
/** Past their end. */
expired: number,
/** Refused everywhere. */
revoked: number,
/** Replaced by a newer one. */
superseded: number, };

/** One certificate. */
export type CertificateRow = {
/** Its holder: a registered device, gateway or operator, or the name of the gateway's own certificate. */
id: string,
/** What it entitles to. */
role: CertificateRole,
/** Its serial number in lower-case hex. */
serial: string,
/** The start of its validity. */
not_before_ms: number,
/** The end of its validity. */
not_after_ms: number,
/** How it stands. */
state: CertificateState,
/** The CA that signed it: its name, or its key id in hex. */
authority: string, };

/** What a certificate entitles its holder to. */
export type CertificateRole = "authority" | "server" | "gateway" | "operator" | "device";

/** How a certificate stands. */
export type CertificateState = "expired" | "expiring" | "valid" | "revoked" | "superseded";

/** The connected clients: at most 500 of them. */
export type SessionsView = {
/** Those without a proven identity, then gateways, operators and devices; within each by id. */
rows: Array<SessionRow>,
/** How many are connected in all. */
total: number,
/** How many of all use a post-quantum key exchange. */
post_quantum: number,
/** How many of all are not encrypted. */
unencrypted: number,
/** How many are not in `rows`. */
left_out: number, };

/** One connected client. */
export type SessionRow = {
/** Who it proved to be; null where nothing was proven. */
id: string | null,
/** The role in its certificate; null where it has none. */
role: CertificateRole | null,
/** The client id of its CONNECT, which anybody may choose. */
client_id: string,
/** Its address and port. */
peer: string,
/** When it connected. */
since_ms: number,
/** How the link is encrypted; null where it is not. */
tls: SessionTls | null, };

/** How a session's link is encrypted. */
export type SessionTls = {
/** The protocol's version, such as `TLS 1.3`. */
version: string,
/** The cipher suite, such as `TLS_AES_256_GCM_SHA384`. */
cipher: string,
/** The key exchange, such as `X25519MLKEM768`; empty where it is not known. */
key_exchange: string,
/** Whether the key exchange withstands a quantum computer: what is recorded today stays
 * secret then. */
post_quantum: boolean,
/** Whether an earlier session was resumed, so that no certificate was exchanged again. */
resumed: boolean, };

/** The revocation lists in use. */
export type RevocationView = {
/** One per CA; empty where none is in use. */
lists: Array<RevocationList>, };

/** One revocation list in use. */
export type RevocationList = {
/** The CA that signed it: its name, or its key id in hex. */
authority: string,
/** Its crlNumber (RFC 5280 §5.2.3) in decimal: a later list has a higher one. */
number: string,
/** When it was made. */
this_update_ms: number,
/** When the next one is due; after it, every client is refused. */
next_update_ms: number,
/** How many certificates it revokes. */
revoked: number, };

/** Something that needs somebody, until it does not any more. */
export type Alarm = {
/** How soon somebody must act. */
severity: AlarmSeverity,
/** What is out of order, as a sentence. */
text: string,
/** What to do about it, as a sentence; empty where `text` says it. */
remedy: string,
/** Since when. */
since_ms: number, };

/** How soon somebody must act. */
export type AlarmSeverity = "critical" | "warning" | "info";

/** The answer of `/api/v1/summary`: the state in one small object. */
export type Summary = {
/** The protocol's version. */
version: number,
/** The name of the place. */
site: string,
/** How much protection is on. */
level: string,
/** Whether the devices are simulated. */
demo: boolean,
/** The server's clock now. */
server_time_ms: number,
/** When the server started. */
started_ms: number,
/** Counts since the database began. */
totals: Totals,
/** The defence layers. */
layers: Array<LayerView>,
/** The zones. */
zones: Array<ZoneView>,
/** How many devices are registered. */
device_count: number,
/** Lasting warnings. */
notes: Array<string>, };

/** The answer of `/api/v1/events`: newest first. */
export type EventPage = {
/** The events, newest first. */
events: Array<EventView>,
/** Pass it as `before` for the next page; null when there is none. */
next_before: number | null, };

/** One registered device, as seen since the server started. */
export type DeviceView = {
/** Its id in the registry. */
id: string,
/** Its zone. */
zone: string,
/** When its last accepted reading arrived. */
last_seen_ms: number | null,
/** The sequence number of its last accepted reading. */
sequence: number | null,
/** The forest's score of its last reading. */
score: number | null,
/** Accepted and not flagged. */
accepted: number,
/** Flagged. */
flagged: number,
/** Blocked. */
blocked: number,
/** Its latest readings. */
channels: Record<string, ChannelView>, };

/** The answer of `/api/v1/devices`: in the registry's order. */
export type DevicePage = {
/** The devices. */
devices: Array<DeviceView>,
/** How many there are in all. */
total: number,
/** Pass it as `offset` for the next page; null when there is none. */
next_offset: number | null, };

export const PROTOCOL_VERSION = 2;
