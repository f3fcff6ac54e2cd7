/* Replays an exported plan: checks what C can check and prints what it counts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

static const cosma_plan *const plan = &cosma_plan_data;

static void fail(const char *what, uint32_t at) {
  fprintf(stderr, "instruction %lu: %s\n", (unsigned long)at, what);
  exit(1);
}

int main(void) {
  const uint32_t tensors = plan->tensor_count;
  const uint64_t capacity = plan->scratchpad - plan->reserved;
  uint64_t *address = calloc(tensors + 1u, sizeof *address);
  unsigned char *here = calloc(tensors + 1u, 1), *off = calloc(tensors + 1u, 1);
  unsigned char *owner_set = calloc(capacity / plan->alignment + 1u, 1);
  uint32_t *taken = malloc((tensors + 1u) * sizeof *taken);
  uint64_t loaded = 0, stored = 0, streamed = 0, used = 0, peak = 0, executed = 0;
  uint32_t i, j;
  uint64_t k;
  if (!address || !here || !off || !owner_set || !taken) return 2;
  for (j = 0; j < tensors; j++) {
    off[j] = plan->tensors[j].kind == COSMA_INPUT || plan->tensors[j].kind == COSMA_WEIGHT;
    taken[j] = COSMA_NONE;
  }
  for (i = 0; i < plan->instruction_count; i++) {
    const cosma_instruction *const now = &plan->instructions[i];
    if (now->what == COSMA_EXECUTE) {
      const cosma_operator *const op = &plan->operators[now->subject];
      const cosma_list lists[3] = {op->inputs, op->weights, op->outputs};
      int list;
      executed++;
      for (list = 0; list < 3; list++) {
        for (j = 0; j < lists[list].count; j++) {
          const uint32_t t = plan->indices[lists[list].first + j];
          int through = list == 1 && plan->weights_are_streamed;
          uint32_t s;
          for (s = 0; s < now->streamed.count; s++) through |= plan->indices[now->streamed.first + s] == t;
          if (through) {
            if (list < 2 && !off[t]) fail("streams what is not off-chip", i);
            streamed += plan->tensors[t].bytes;
            if (list == 2) off[t] = 1;
          } else if (!here[t]) {
            fail(list < 2 ? "operand absent" : "result has no space", i);
          }
        }
      }
      for (j = 0; j < op->outputs.count; j++) {
        const uint32_t t = plan->indices[op->outputs.first + j];
        const uint32_t u = taken[t];
        if (u == COSMA_NONE) continue;
        taken[t] = COSMA_NONE;
        here[u] = 0;
        used -= plan->tensors[u].space;
        used += plan->tensors[t].space;
        for (k = plan->tensors[t].space; k < plan->tensors[u].space; k += plan->alignment)
          owner_set[(address[u] + k) / plan->alignment] = 0;
      }
      continue;
    }
    {
      const uint32_t t = now->subject;
      const cosma_tensor *const tensor = &plan->tensors[t];
      switch (now->what) {
        case COSMA_LOAD:
        case COSMA_ALLOCATE:
          if (here[t]) fail("already there", i);
          if (now->address % plan->alignment) fail("misaligned", i);
          if (now->address + tensor->space > capacity) fail("out of bounds", i);
          here[t] = 1;
          address[t] = now->address;
          if (now->what == COSMA_LOAD) {
            if (!off[t]) fail("loads what is not off-chip", i);
            loaded += tensor->bytes;
          }
          if (now->what == COSMA_ALLOCATE && now->in_place_of != COSMA_NONE) {
            if (address[now->in_place_of] != now->address) fail("not the operand's address", i);
            taken[t] = now->in_place_of;
            break;
          }
          for (k = 0; k < tensor->space; k += plan->alignment) {
            unsigned char *const cell = &owner_set[(now->address + k) / plan->alignment];
            if (*cell) fail("overlap", i);
            *cell = 1;
          }
          used += tensor->space;
          break;
        case COSMA_STORE:
          if (!here[t]) fail("stores what is not there", i);
          off[t] = 1;
          stored += tensor->bytes;
          break;
        case COSMA_FREE:
          if (!here[t]) fail("frees what is not there", i);
          here[t] = 0;
          used -= tensor->space;
          for (k = 0; k < tensor->space; k += plan->alignment) owner_set[(address[t] + k) / plan->alignment] = 0;
          break;
        default: fail("unknown", i);
      }
      if (used > peak) peak = used;
    }
  }
  for (j = 0; j < tensors; j++)
    if (plan->tensors[j].kind == COSMA_OUTPUT && !off[j]) fail("an output is missing", plan->instruction_count);
  printf("%llu %llu %llu %llu %llu\n", (unsigned long long)loaded, (unsigned long long)stored,
         (unsigned long long)streamed, (unsigned long long)peak, (unsigned long long)executed);
  printf("%s\n%s\n", plan->model, plan->tensors[tensors - 1u].name);
  return 0;
}
