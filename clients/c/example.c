/* Signs one reading in every form and prints it, one `name value` a line.
 *
 * With an argument it is a time answer to be checked. The key and the nonce are fixed, so that a
 * test can compare; a device takes its own. */
#include "tidegate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOPIC "hydroficient/grandmarina/device-001/sensors"

static void print_hex(const char *name, const uint8_t *bytes, int32_t length) {
    printf("%s ", name);
    for (int32_t i = 0; i < length; i++) {
        printf("%02x", bytes[i]);
    }
    printf("\n");
}

/* Stops at the first failure. */
static int32_t must(const char *what, int32_t result) {
    if (result < 0) {
        fprintf(stderr, "%s: %d\n", what, (int)result);
        _Exit(1);
    }
    return result;
}

/* Each refusal, provoked once. */
static void print_refusals(const tidegate_key *key, tidegate_fresh fresh) {
    uint8_t out[TIDEGATE_MAX_COSE] = {0};
    char text[64] = {0};
    const float infinite[] = {INFINITY};
    const tidegate_channel twice[] = {{"a", 1.0}, {"a", 2.0}};
    tidegate_key wiped = *key;
    tidegate_key_wipe(&wiped);
    const tidegate_fresh zero = {.sequence = 0, .time_us = 1, .boot = 1};
    const int32_t refusals[] = {
        tidegate_sign_cose(NULL, TOPIC, &fresh, 1, NULL, 0, false, out, sizeof out),
        tidegate_sign_cose(key, TOPIC, &fresh, 1, NULL, 0, false, out, 56),
        tidegate_key_derive(&wiped, (const uint8_t[32]){0}, "a/b", 0),
        tidegate_sign_cose(key, "\xff", &fresh, 1, NULL, 0, false, out, sizeof out),
        tidegate_sign_cose(key, TOPIC, &fresh, 1, infinite, 1, false, out, sizeof out),
        tidegate_sign_json(key, "d", &fresh, "", twice, 2, text, sizeof text),
        tidegate_sign_cose(key, TOPIC, &zero, 1, NULL, 0, false, out, sizeof out),
        tidegate_sign_cose(&wiped, TOPIC, &fresh, 1, NULL, 0, false, out, sizeof out),
        tidegate_sign_json(key, "d", &fresh, "", twice, 1, text, sizeof text),
        tidegate_sign_detached(key, TOPIC, &fresh, NULL, 1, false, text, sizeof text),
        tidegate_sign_detached(key, TOPIC, &fresh, NULL, 0, true, text, 5),
        tidegate_time_request((const uint8_t[16]){0}, text, TIDEGATE_TIME_REQUEST - 1),
        tidegate_key_load(&wiped, out, 65, 0),
    };
    printf("refusals");
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        printf(" %d", (int)refusals[i]);
    }
    printf("\n");
}

int main(int argc, char **argv) {
    uint8_t root[32];
    for (uint8_t i = 0; i < sizeof root; i++) {
        root[i] = i;
    }
    tidegate_key key;
    must("derive", tidegate_key_derive(&key, root, "device-001", 1));

    const tidegate_fresh fresh = {.sequence = 70000, .time_us = 1771472105551904, .boot = 3};
    const tidegate_channel channels[] = {
        {"pressure_upstream", 60.12}, {"pressure_downstream", 55.7}, {"flow_rate", 50.0},
        {"gate_a_position", 45.3},    {"gate_b_position", 44.9},
    };
    char json[512] = {0};
    must("json", tidegate_sign_json(&key, "HYDROLOGIC-Device-001", &fresh, "operational", channels,
                                    5, json, sizeof json));
    printf("json %s\n", json);

    const float values[] = {60.12f, 55.7f, 50.0f, 45.3f, 44.9f};
    uint8_t message[TIDEGATE_MAX_COSE] = {0};
    int32_t length = must("cose", tidegate_sign_cose(&key, TOPIC, &fresh, TIDEGATE_STATUS_OPERATIONAL,
                                                     values, 5, false, message, sizeof message));
    print_hex("cose", message, length);
    length = must("cose-short", tidegate_sign_cose(&key, TOPIC, &fresh, TIDEGATE_STATUS_OPERATIONAL,
                                                   values, 5, true, message, sizeof message));
    print_hex("cose-short", message, length);

    /* A key that was provisioned as bytes, of whatever length. */
    tidegate_key loaded;
    must("load", tidegate_key_load(&loaded, (const uint8_t *)"secret", 6, 0xfffe));
    length = must("cose-loaded", tidegate_sign_cose(&loaded, TOPIC, &fresh, TIDEGATE_STATUS_NONE, NULL,
                                                    0, false, message, sizeof message));
    print_hex("cose-loaded", message, length);
    tidegate_key_wipe(&loaded);

    const char *payload = "{\"payload\": {\"pressure_psi\": 60.12}}";
    char property[TIDEGATE_MAX_DETACHED] = {0};
    must("detached", tidegate_sign_detached(&key, TOPIC, &fresh, (const uint8_t *)payload,
                                            strlen(payload), false, property, sizeof property));
    printf("detached-payload %s\ndetached %s\n", payload, property);

    const uint8_t nonce[TIDEGATE_NONCE] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255};
    char request[TIDEGATE_TIME_REQUEST] = {0};
    must("time", tidegate_time_request(nonce, request, sizeof request));
    printf("time-request %s\n", request);
    if (argc > 1) {
        int64_t time_us = 0;
        int32_t result = tidegate_time_check(&key, "device-001", nonce, (const uint8_t *)argv[1],
                                             strlen(argv[1]), &time_us);
        printf("time-check %d %lld\n", (int)result, (long long)time_us);
    }
    print_refusals(&key, fresh);
    tidegate_key_wipe(&key);
    return 0;
}
