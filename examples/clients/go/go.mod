module lwq-example

go 1.19
