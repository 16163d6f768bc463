;; A counter, as actors/counter, but in WASM: the number lives in kvp. Written by hand to show the whole of the ABI
;; (docs/wasm.md); from a compiler it would be some 20 lines.
(module
  (import "tea" "link" (func $link (param i32 i32) (result i32)))
  (import "tea" "operation" (func $operation (param i32 i32 i32) (result i32)))
  (import "tea" "call" (func $call (param i32 i32 i32 i32 i32) (result i64)))

  (memory (export "memory") 1)
  (data (i32.const 16) "kvp")
  (data (i32.const 32) "incr")
  (data (i32.const 48) "get")
  ;; msgpack: ["count"], and the beginning of ["count", by]
  (data (i32.const 64) "\91\a5count")
  (data (i32.const 80) "\92\a5count")
  ;; msgpack: 0
  (data (i32.const 96) "\00")
  ;; an error as it travels: [3 (INVALID), sentence, {}]
  (data (i32.const 112) "\93\03\b5a step is 1 or more..\80")

  ;; Memory from 1024 on is given out in order, and all of it is free again when the next call begins.
  (global $next (mut i32) (i32.const 1024))
  (global $inside (mut i32) (i32.const 0))

  (func $alloc (export "tea_alloc") (param $size i32) (result i32)
    (local $place i32)
    (if (i32.eqz (global.get $inside)) (then (global.set $next (i32.const 1024))))
    (local.set $place (global.get $next))
    ;; Beyond the first page there is nothing: 0 says so.
    (if (i32.gt_u (local.get $size) (i32.const 60000)) (then (return (i32.const 0))))
    (global.set $next (i32.add (local.get $place) (local.get $size)))
    (if (i32.gt_u (global.get $next) (i32.const 65536)) (then (return (i32.const 0))))
    (local.get $place))

  (func $packed (param $place i32) (param $size i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $place)) (i64.const 32)) (i64.extend_i32_u (local.get $size))))

  ;; kvp: the operation whose name stands at $name; the answer as it is, error or not. Where the link or the operation
  ;; is not granted their numbers are 0 and -1, and the answer is DENIED.
  (func $kvp (param $name i32) (param $length i32) (param $body i32) (param $size i32) (result i64)
    (local $number i32)
    (local.set $number (call $link (i32.const 16) (i32.const 3)))
    (call $call
      (local.get $number)
      (call $operation (local.get $number) (local.get $name) (local.get $length))
      (local.get $body) (local.get $size)
      (i32.const 0)))

  ;; 0: increment(by). The arguments are msgpack [by]: an array of one, then an integer.
  (func $increment (param $place i32) (param $size i32) (result i64)
    (local $first i32)
    (local $body i32)
    (local.set $first (i32.load8_u offset=1 (local.get $place)))
    ;; 1 to 127 are one byte, larger ones begin with 0xcc to 0xcf; 0 is 0x00, and below it 0xd0 and more.
    (if (i32.or (i32.eqz (local.get $first)) (i32.ge_u (local.get $first) (i32.const 0xd0)))
      (then (return (i64.or (call $packed (i32.const 112) (i32.const 25)) (i64.const 0x8000000000000000)))))
    (local.set $body (call $alloc (i32.add (local.get $size) (i32.const 6))))
    (memory.copy (local.get $body) (i32.const 80) (i32.const 7))
    (memory.copy
      (i32.add (local.get $body) (i32.const 7))
      (i32.add (local.get $place) (i32.const 1))
      (i32.sub (local.get $size) (i32.const 1)))
    (call $kvp (i32.const 32) (i32.const 4) (local.get $body) (i32.add (local.get $size) (i32.const 6))))

  ;; 1: value(). kvp has the number as decimal digits: msgpack bin8 (0xc4, length, digits), or nil.
  (func $value (result i64)
    (local $answer i64)
    (local $place i32)
    (local $end i32)
    (local $sum i64)
    (local.set $answer (call $kvp (i32.const 48) (i32.const 3) (i32.const 64) (i32.const 7)))
    (if (i64.lt_s (local.get $answer) (i64.const 0)) (then (return (local.get $answer))))
    (local.set $place (i32.wrap_i64 (i64.shr_u (local.get $answer) (i64.const 32))))
    (if (i32.ne (i32.load8_u (local.get $place)) (i32.const 0xc4))
      (then (return (call $packed (i32.const 96) (i32.const 1)))))
    (local.set $end (i32.add (local.get $place) (i32.wrap_i64 (local.get $answer))))
    (local.set $place (i32.add (local.get $place) (i32.const 2)))
    (block $done
      (loop $digit
        (br_if $done (i32.ge_u (local.get $place) (local.get $end)))
        (local.set $sum
          (i64.add
            (i64.mul (local.get $sum) (i64.const 10))
            (i64.extend_i32_u (i32.sub (i32.load8_u (local.get $place)) (i32.const 48)))))
        (local.set $place (i32.add (local.get $place) (i32.const 1)))
        (br $digit)))
    ;; msgpack uint64: 0xcf and eight bytes, the highest first.
    (local.set $place (call $alloc (i32.const 9)))
    (i32.store8 (local.get $place) (i32.const 0xcf))
    (local.set $end (i32.const 8))
    (loop $byte
      (i32.store8 (i32.add (local.get $place) (local.get $end)) (i32.wrap_i64 (local.get $sum)))
      (local.set $sum (i64.shr_u (local.get $sum) (i64.const 8)))
      (local.set $end (i32.sub (local.get $end) (i32.const 1)))
      (br_if $byte (local.get $end)))
    (call $packed (local.get $place) (i32.const 9)))

  (func (export "tea_handle") (param $number i32) (param $place i32) (param $size i32) (result i64)
    (local $answer i64)
    (global.set $inside (i32.const 1))
    (if (i32.eqz (local.get $number))
      (then (local.set $answer (call $increment (local.get $place) (local.get $size))))
      (else (local.set $answer (call $value))))
    (global.set $inside (i32.const 0))
    (local.get $answer)))
