module example.org/service

go 1.19

require example.org/words v1.0.0
