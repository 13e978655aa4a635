"""Mixed precision: what goes back from int8 so that a graph passes the gate, and is not slower than fp32.

int8 draft ─ judge ─► passes ───────────────────────────────────────────────► time against fp32 ─► ships
               └────► fails ─ rank operators by noise ─ give back the worst ─┘        └─ give back what does not pay

An operator goes back in two steps: int8 weights with fp32 arithmetic (its bytes stay small), then fp32 altogether.
"""
