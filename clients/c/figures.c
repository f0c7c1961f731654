/* Stack that each call takes: runs it on a stack of its own that was painted before, and looks how
 * far the paint is gone. With ONLY defined to one call, its program's size shows the code that this
 * call brings in. */
#include "tidegate.h"

#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#define TOPIC "hydroficient/grandmarina/device-001/sensors"
#define PAINT 0xa5
#define NONE 0
#define JSON 1
#define COSE 2
#define DETACHED 3
#define TIME 4
#define ALL 5
#ifndef ONLY
#define ONLY ALL
#endif
#define HAS(call) (ONLY == (call) || ONLY == ALL)

static uint8_t stack[64 * 1024];
static ucontext_t here, there;
tidegate_key key = {.bytes = {1, 2, 3}, .length = 32, .epoch = 1};
const tidegate_fresh fresh = {.sequence = 70000, .time_us = 1771472105551904, .boot = 3};
/* Not on the stack, so that no buffer of the caller counts as stack. */
char out[512];
static volatile int32_t result;

static void nothing(void) {}

#if HAS(JSON)
static const tidegate_channel channels[] = {
    {"pressure_upstream", 60.12}, {"pressure_downstream", 55.7}, {"flow_rate", 50.0},
    {"gate_a_position", 45.3},    {"gate_b_position", 44.9},
};
static void json(void) {
    result = tidegate_sign_json(&key, "HYDROLOGIC-Device-001", &fresh, "operational", channels, 5, out,
                                sizeof out);
}
#endif
#if HAS(COSE)
static const float values[] = {60.12f, 55.7f, 50.0f, 45.3f, 44.9f};
static void cose(void) {
    result = tidegate_sign_cose(&key, TOPIC, &fresh, 1, values, 5, false, (uint8_t *)out, sizeof out);
}
#endif
#if HAS(DETACHED)
static void detached(void) {
    result = tidegate_sign_detached(&key, TOPIC, &fresh, (const uint8_t *)"{}", 2, false, out, sizeof out);
}
#endif
#if HAS(TIME)
static void time_check(void) {
    static const uint8_t nonce[TIDEGATE_NONCE];
    static int64_t time_us;
    /* All of the check runs, and the MAC is wrong. */
    static const char answer[] =
        "{\"kid\":1,\"nonce\":\"00000000000000000000000000000000\",\"time\":"
        "\"2026-02-19T03:35:05.551904Z\",\"hmac\":"
        "\"0000000000000000000000000000000000000000000000000000000000000000\"}";
    result = tidegate_time_check(&key, "device-001", nonce, (const uint8_t *)answer, sizeof answer - 1,
                                 &time_us);
}
#endif

/* Bytes of stack from the top to the deepest that `call` wrote. */
static size_t depth(void (*call)(void)) {
    memset(stack, PAINT, sizeof stack);
    getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = sizeof stack;
    there.uc_link = &here;
    makecontext(&there, call, 0);
    swapcontext(&here, &there);
    size_t untouched = 0;
    while (untouched < sizeof stack && stack[untouched] == PAINT) {
        untouched++;
    }
    return sizeof stack - untouched;
}

#if ONLY != NONE
static void show(const char *name, void (*call)(void)) {
    size_t own = depth(nothing);
    size_t with_call = depth(call);
    printf("stack %-12s %5zu bytes (result %d)\n", name, with_call - own, (int)result);
}
#endif

int main(void) {
#if HAS(JSON)
    show("json-v1", json);
#endif
#if HAS(COSE)
    show("cose-v1", cose);
#endif
#if HAS(DETACHED)
    show("detached", detached);
#endif
#if HAS(TIME)
    show("time check", time_check);
#endif
#if ONLY == NONE
    printf("%zu\n", depth(nothing));
#endif
    return 0;
}
