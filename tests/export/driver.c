/* Carries an exported plan out: copies real bytes between an off-chip memory and a scratchpad, and computes.
 *
 * Standard input holds the inputs and weights in the order of the table of tensors; standard output gets the outputs in
 * that order, then the bytes that were loaded, stored and streamed. Elements are 32-bit integers that wrap around. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

static const cosma_plan *const plan = &cosma_plan_data;
static unsigned char *scratchpad;
static unsigned char **off_chip; /* NULL where a tensor has no off-chip copy */
static uint64_t *address;
static unsigned char *there; /* whether a tensor is in the scratchpad */
static uint64_t loaded, stored, streamed;

static void fail(const char *what, uint32_t at) {
  fprintf(stderr, "instruction %lu: %s\n", (unsigned long)at, what);
  exit(1);
}

static unsigned char *fresh(uint64_t bytes) {
  unsigned char *const found = malloc(bytes ? (size_t)bytes : 1u);
  if (!found) exit(2);
  return found;
}

static int is_streamed(const cosma_instruction *now, uint32_t tensor) {
  uint32_t i;
  for (i = 0; i < now->streamed.count; i++)
    if (plan->indices[now->streamed.first + i] == tensor) return 1;
  return 0;
}

static uint32_t one(const char *type, uint32_t a, uint32_t b) {
  if (!strcmp(type, "Neg")) return 0u - a;
  if (!strcmp(type, "Abs")) return a & 0x80000000u ? 0u - a : a;
  if (!strcmp(type, "Add")) return a + b;
  if (!strcmp(type, "Sub")) return a - b;
  if (!strcmp(type, "Mul")) return a * b;
  if (!strcmp(type, "Max")) return (a ^ 0x80000000u) > (b ^ 0x80000000u) ? a : b;
  fprintf(stderr, "no operator %s here\n", type);
  exit(1);
}

static void execute(const cosma_instruction *now, uint32_t at) {
  const cosma_operator *const op = &plan->operators[now->subject];
  const cosma_list lists[2] = {op->inputs, op->weights};
  const unsigned char *operand[2] = {NULL, NULL};
  unsigned char *held[2] = {NULL, NULL}; /* what was streamed in */
  unsigned char *result;
  uint32_t count = 0, list, j;
  uint64_t k;
  const uint32_t target = plan->indices[op->outputs.first];
  const uint64_t bytes = plan->tensors[target].bytes;
  for (list = 0; list < 2; list++) {
    for (j = 0; j < lists[list].count; j++) {
      const uint32_t t = plan->indices[lists[list].first + j];
      if (count == 2 || plan->tensors[t].bytes != bytes) fail("an operand that is not elementwise", at);
      if ((list == 1 && plan->weights_are_streamed) || is_streamed(now, t)) {
        if (!off_chip[t]) fail("streams what is not off-chip", at);
        held[count] = fresh(bytes);
        memcpy(held[count], off_chip[t], (size_t)bytes);
        streamed += bytes;
        operand[count] = held[count];
      } else {
        if (!there[t]) fail("an operand is absent", at);
        operand[count] = scratchpad + address[t];
      }
      count++;
    }
  }
  if (is_streamed(now, target)) {
    if (!off_chip[target]) off_chip[target] = fresh(bytes);
    result = off_chip[target];
    streamed += bytes;
  } else {
    if (!there[target]) fail("the result has no space", at);
    result = scratchpad + address[target];
  }
  for (k = 0; k < bytes; k += 4) { /* element by element: the result may lie over an operand */
    uint32_t a, b = 0, y;
    memcpy(&a, operand[0] + k, 4);
    if (count > 1) memcpy(&b, operand[1] + k, 4);
    y = one(op->type, a, b);
    memcpy(result + k, &y, 4);
  }
  free(held[0]);
  free(held[1]);
}

int main(void) {
  const uint32_t tensors = plan->tensor_count;
  uint32_t i, t;
  scratchpad = fresh(plan->scratchpad);
  memset(scratchpad, 0xFF, (size_t)plan->scratchpad);
  off_chip = calloc(tensors + 1u, sizeof *off_chip);
  address = calloc(tensors + 1u, sizeof *address);
  there = calloc(tensors + 1u, 1);
  if (!off_chip || !address || !there) return 2;
  for (t = 0; t < tensors; t++) {
    const cosma_tensor *const tensor = &plan->tensors[t];
    if (tensor->kind != COSMA_INPUT && tensor->kind != COSMA_WEIGHT) continue;
    off_chip[t] = fresh(tensor->bytes);
    if (fread(off_chip[t], 1, (size_t)tensor->bytes, stdin) != tensor->bytes) return 2;
  }
  for (i = 0; i < plan->instruction_count; i++) {
    const cosma_instruction *const now = &plan->instructions[i];
    const cosma_tensor *const tensor = now->what == COSMA_EXECUTE ? NULL : &plan->tensors[now->subject];
    t = now->subject;
    switch (now->what) {
      case COSMA_EXECUTE:
        execute(now, i);
        break;
      case COSMA_LOAD:
        if (!off_chip[t]) fail("loads what is not off-chip", i);
        memcpy(scratchpad + now->address, off_chip[t], (size_t)tensor->bytes);
        loaded += tensor->bytes;
        address[t] = now->address;
        there[t] = 1;
        break;
      case COSMA_ALLOCATE:
        if (now->in_place_of == COSMA_NONE) memset(scratchpad + now->address, 0xFF, (size_t)tensor->space);
        address[t] = now->address;
        there[t] = 1;
        break;
      case COSMA_STORE:
        if (!there[t]) fail("stores what is not there", i);
        if (!off_chip[t]) off_chip[t] = fresh(tensor->bytes);
        memcpy(off_chip[t], scratchpad + address[t], (size_t)tensor->bytes);
        stored += tensor->bytes;
        break;
      case COSMA_FREE:
        memset(scratchpad + address[t], 0xFF, (size_t)tensor->space);
        there[t] = 0;
        break;
      default: fail("unknown", i);
    }
  }
  for (t = 0; t < tensors; t++) {
    if (plan->tensors[t].kind != COSMA_OUTPUT) continue;
    if (!off_chip[t]) fail("an output is missing", plan->instruction_count);
    if (fwrite(off_chip[t], 1, (size_t)plan->tensors[t].bytes, stdout) != plan->tensors[t].bytes) return 2;
  }
  {
    const uint64_t traffic[3] = {loaded, stored, streamed};
    if (fwrite(traffic, sizeof traffic[0], 3, stdout) != 3) return 2;
  }
  return 0;
}
