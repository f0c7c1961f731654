/* Signing for Tidegate (docs/envelope.md) on devices without an operating system.
 *
 * Needs neither an allocator nor a file; of the C library it needs memcpy, memmove, memset, memcmp
 * and strlen. Nothing is kept between two calls, so any thread or interrupt may call.
 *
 * Functions that return int32_t return a length or 0 on success, and on failure one of the
 * negative numbers below; the contents of the output buffer are undefined then, and must not be
 * sent. A buffer must be initialised (for example `= {0}`), and no other argument may lie in it.
 * Texts are UTF-8 and end with a zero byte.
 */
#ifndef TIDEGATE_H
#define TIDEGATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Why a call failed. */
#define TIDEGATE_NULL (-1)          /* a pointer is NULL */
#define TIDEGATE_NO_ROOM (-2)       /* the output buffer is too small */
#define TIDEGATE_NAME (-3)          /* a device name is not 1 to 64 of A-Z a-z 0-9 . _ - */
#define TIDEGATE_TEXT (-4)          /* a text is not UTF-8 */
#define TIDEGATE_VALUES (-5)        /* more than 32 values, one that is not finite, or a channel
                                       that stands twice or has a name of more than 48 bytes */
#define TIDEGATE_NUMBER (-6)        /* a sequence not in 1..2^53, a time before 1970, or a key that
                                       is empty or longer than 64 bytes */
#define TIDEGATE_NOT_AUTHENTIC (-7) /* the time answer is not the gateway's to this question */

/* Room that is always enough, in bytes. */
#define TIDEGATE_MAX_COSE 234         /* tidegate_sign_cose */
#define TIDEGATE_MAX_DETACHED 101     /* tidegate_sign_detached, with its final zero */
#define TIDEGATE_TIME_REQUEST 45      /* tidegate_time_request, with its final zero */
#define TIDEGATE_NONCE 16

/* The MQTT 5 user property that carries what tidegate_sign_detached writes. */
#define TIDEGATE_DETACHED_PROPERTY "tidegate-mac0"

/* The status byte of tidegate_sign_cose. */
#define TIDEGATE_STATUS_NONE 0
#define TIDEGATE_STATUS_OPERATIONAL 1
#define TIDEGATE_STATUS_DEGRADED 2
#define TIDEGATE_STATUS_MAINTENANCE 3
#define TIDEGATE_STATUS_FAULT 4

/* A signing key with its epoch. It is plain data and may be copied; keep it where nothing else can
 * read it, and wipe every copy. Only the functions below look inside. */
typedef struct {
    uint8_t bytes[64];
    uint16_t length;
    uint16_t epoch;
} tidegate_key;

/* What makes a message new. */
typedef struct {
    uint64_t sequence; /* 1 to 2^53, above every number this device has used, also before a restart */
    int64_t time_us;   /* microseconds since 1970-01-01T00:00:00Z, not before it */
    uint32_t boot;     /* how often this device has started */
} tidegate_fresh;

/* A measured value, for example {"flow_rate", 50.0}. */
typedef struct {
    const char *name;
    double value;
} tidegate_channel;

/* Derives the key of `device` (the name in its certificate) in `epoch` from the installation's root
 * key. For provisioning: a device should hold its own key, never the root key. */
int32_t tidegate_key_derive(tidegate_key *key, const uint8_t root[32], const char *device,
                            uint16_t epoch);

/* Takes a key of 1 to 64 bytes as it was provisioned, for example the 32 bytes that
 * `tidegate devices key` writes. */
int32_t tidegate_key_load(tidegate_key *key, const uint8_t *bytes, size_t length, uint16_t epoch);

/* Overwrites a key. It can sign nothing afterwards. */
void tidegate_key_wipe(tidegate_key *key);

/* Writes a signed json-v1 message with a final zero, and returns its length without it. `device_id`
 * is the name in messages, `status` may be "". Channels may come in any order. The text has about
 * 320 bytes for five channels. */
int32_t tidegate_sign_json(const tidegate_key *key, const char *device_id,
                           const tidegate_fresh *fresh, const char *status,
                           const tidegate_channel *channels, size_t count, char *out, size_t room);

/* Writes a signed cose-v1 message, and returns its length. `values` are in the order of the
 * device's channels in devices.toml. The message holds for `topic` only. The short tag has 8 bytes
 * in place of 32. Of the time, milliseconds are carried. */
int32_t tidegate_sign_cose(const tidegate_key *key, const char *topic, const tidegate_fresh *fresh,
                           uint8_t status, const float *values, size_t count, bool short_tag,
                           uint8_t *out, size_t room);

/* Signs a payload of any older form, which stays as it is: writes the value of the user property
 * TIDEGATE_DETACHED_PROPERTY with a final zero, and returns its length without it. */
int32_t tidegate_sign_detached(const tidegate_key *key, const char *topic,
                               const tidegate_fresh *fresh, const uint8_t *payload, size_t length,
                               bool short_tag, char *out, size_t room);

/* Writes the question for the time with a final zero, and returns its length without it. Publish it
 * on the device's `time` topic. `nonce` is 16 random bytes, new for every question. */
int32_t tidegate_time_request(const uint8_t nonce[16], char *out, size_t room);

/* Checks an answer from the device's `commands` topic; on success (0) the time is in `time_us`, and
 * is older by as much as the answer was under way. Forget the nonce then; ask again with another
 * when no answer has come within a few seconds. */
int32_t tidegate_time_check(const tidegate_key *key, const char *device, const uint8_t nonce[16],
                            const uint8_t *answer, size_t length, int64_t *time_us);

#ifdef __cplusplus
}
#endif

#endif
