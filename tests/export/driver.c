/* Carries an exported plan out: copies real bytes between an off-chip memory, laid out as the plan says, and a
 * scratchpad, and computes.
 *
 * Standard input holds the inputs and weights in the order of the table of tensors; standard output gets the outputs in
 * that order, then the bytes that were loaded, stored and streamed. Elements are 32-bit integers that wrap around. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

static const cosma_plan *const plan = &cosma_plan_data;
static unsigned char *scratchpad;
static unsigned char *areas[4]; /* off-chip memory */
static unsigned char *is_off_chip; /* whether a tensor has an off-chip copy */
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

static const cosma_place *place_of(uint32_t tensor, uint32_t is_root) {
  uint32_t i;
  for (i = 0; i < plan->place_count; i++)
    if (plan->places[i].tensor == tensor && plan->places[i].is_root == is_root) return &plan->places[i];
  return NULL;
}

/* Copies a box of a root between its place off-chip and a buffer that holds the box alone, row by row. */
static void copy_box(const cosma_region *box, uint32_t root, const cosma_place *place, unsigned char *data, int out) {
  const uint64_t *const start = plan->bounds + box->first, *const stop = start + box->rank;
  const uint64_t *const shape = plan->bounds + plan->roots[root].first;
  unsigned char *const base = areas[place->area] + place->offset;
  uint64_t elements = 1, at[8], width, row;
  uint32_t axis;
  if (box->rank == 0 || box->rank > 8 || box->rank != plan->roots[root].rank) exit(2);
  for (axis = 0; axis < box->rank; axis++) {
    elements *= shape[axis];
    at[axis] = start[axis];
  }
  width = plan->roots[root].bytes / elements;
  row = (stop[box->rank - 1] - start[box->rank - 1]) * width;
  for (;;) {
    uint64_t offset = 0;
    for (axis = 0; axis < box->rank; axis++) offset = offset * shape[axis] + at[axis];
    if (out) memcpy(base + offset * width, data, (size_t)row);
    else memcpy(data, base + offset * width, (size_t)row);
    data += row;
    for (axis = box->rank - 1; axis-- > 0;) {
      if (++at[axis] < stop[axis]) break;
      at[axis] = start[axis];
    }
    if (axis == UINT32_MAX) return;
  }
}

/* Copies a tensor between its place off-chip, alone or in the root that it is a part or a piece of, and a buffer. */
static void copy(uint32_t tensor, unsigned char *data, int out, uint32_t when) {
  const cosma_place *const place = place_of(tensor, 0);
  uint32_t i, root;
  if (!out && !is_off_chip[tensor]) fail("reads what is not off-chip", when);
  if (out) is_off_chip[tensor] = 1;
  if (place) {
    unsigned char *const there_off_chip = areas[place->area] + place->offset;
    if (out) memcpy(there_off_chip, data, (size_t)plan->tensors[tensor].bytes);
    else memcpy(data, there_off_chip, (size_t)plan->tensors[tensor].bytes);
    return;
  }
  for (i = 0; i < plan->region_count; i++) {
    if (plan->regions[i].tensor != tensor) continue;
    for (root = 0; root < plan->root_count; root++) {
      const cosma_place *const whole = place_of(root, 1);
      if (!whole || strcmp(plan->roots[root].name, plan->regions[i].root)) continue;
      copy_box(&plan->regions[i], root, whole, data, out);
      return;
    }
  }
  fail("has no place off-chip", when);
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
  unsigned char *result, *through = NULL; /* what is streamed out */
  uint32_t count = 0, list, j;
  uint64_t k;
  const uint32_t target = plan->indices[op->outputs.first];
  const uint64_t bytes = plan->tensors[target].bytes;
  for (list = 0; list < 2; list++) {
    for (j = 0; j < lists[list].count; j++) {
      const uint32_t t = plan->indices[lists[list].first + j];
      if (count == 2 || plan->tensors[t].bytes != bytes) fail("an operand that is not elementwise", at);
      if ((list == 1 && plan->weights_are_streamed) || is_streamed(now, t)) {
        held[count] = fresh(bytes);
        copy(t, held[count], 0, at);
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
    result = through = fresh(bytes);
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
  if (through) copy(target, through, 1, at);
  free(through);
  free(held[0]);
  free(held[1]);
}

int main(void) {
  const uint32_t tensors = plan->tensor_count;
  unsigned char *data;
  uint32_t i, t;
  scratchpad = fresh(plan->scratchpad);
  memset(scratchpad, 0xFF, (size_t)plan->scratchpad);
  is_off_chip = calloc(tensors + 1u, 1);
  for (t = 0; t < 4; t++) {
    areas[t] = fresh(plan->area_bytes[t]);
    memset(areas[t], 0xEE, (size_t)plan->area_bytes[t]);
  }
  address = calloc(tensors + 1u, sizeof *address);
  there = calloc(tensors + 1u, 1);
  if (!is_off_chip || !address || !there) return 2;
  for (t = 0; t < tensors; t++) {
    const cosma_tensor *const tensor = &plan->tensors[t];
    if (tensor->kind != COSMA_INPUT && tensor->kind != COSMA_WEIGHT) continue;
    data = fresh(tensor->bytes);
    if (fread(data, 1, (size_t)tensor->bytes, stdin) != tensor->bytes) return 2;
    copy(t, data, 1, 0);
    free(data);
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
        copy(t, scratchpad + now->address, 0, i);
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
        copy(t, scratchpad + address[t], 1, i);
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
    data = fresh(plan->tensors[t].bytes);
    copy(t, data, 0, plan->instruction_count);
    if (fwrite(data, 1, (size_t)plan->tensors[t].bytes, stdout) != plan->tensors[t].bytes) return 2;
    free(data);
  }
  for (t = 0; t < plan->root_count; t++) { /* what was cut, or joined, lies whole in its place */
    const cosma_place *const place = place_of(t, 1);
    if (plan->roots[t].kind != COSMA_OUTPUT || !place) continue;
    if (fwrite(areas[place->area] + place->offset, 1, (size_t)plan->roots[t].bytes, stdout) != plan->roots[t].bytes)
      return 2;
  }
  {
    const uint64_t traffic[3] = {loaded, stored, streamed};
    if (fwrite(traffic, sizeof traffic[0], 3, stdout) != 3) return 2;
  }
  return 0;
}
