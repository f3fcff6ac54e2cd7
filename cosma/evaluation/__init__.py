"""The greedy replay of one order, compiled: what an order costs under a fixed rule of replacement."""
